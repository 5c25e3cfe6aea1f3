"""The command as people type it: help, errors and exit codes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from aaa import cli


def aaa(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aaa", *arguments], capture_output=True, text=True, cwd=cwd
    )


def test_help_is_quick_and_lists_the_commands() -> None:
    started = time.perf_counter()
    done = aaa("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("aaa finetune", "aaa pretrain", "aaa table"))
    assert time.perf_counter() - started < 2


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, aaa.cli; print({'torch', 'transformers', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_help_of_finetune_lists_choices() -> None:
    done = aaa("finetune", "--help")
    assert done.returncode == 0
    assert "pattern: aaa, aaa_columns" in done.stdout
    assert "sparsity" in done.stdout


def test_help_of_pretrain_lists_choices() -> None:
    done = aaa("pretrain", "--help")
    assert done.returncode == 0
    assert "corpus: demo_corpus, wikipedia" in done.stdout
    assert "pattern: aaa, aaa_columns" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["finetun"],
            "command 'finetun' is unknown, did you mean finetune? known: finetune,",
        ),
        (["finetune", "pattern=locla2"], "'locla2' is unknown, did you mean local2? known: aaa, "),
        (["finetune", "task=colla"], "cola"),
        (
            ["finetune", "trainig.devices=1"],
            "trainig is unknown, did you mean training? known: seed",
        ),
        (["finetune", "executor=sdpa"], "executor is unknown, did you mean run.executor?"),
        (
            ["finetune", "training.path=here"],
            "training.path is unknown, did you mean data.path or model.path?",
        ),
        (["finetune", "scal=demo"], "scal is unknown, did you mean scale?"),
        (["finetune", "protocl=lra_code"], "protocl is unknown, did you mean protocol?"),
        (
            ["finetune", "training.lerning_rate=1"],
            "training.lerning_rate is unknown, did you mean learning_rate? known: learning",
        ),
        (
            ["finetune", "+training.stepz=1"],
            "training.stepz is unknown; known: learning_rate",
        ),
        (
            ["finetune", "+pattern.axis.initial_logits=1"],
            "pattern.axis.initial_logits is unknown, did you mean initial_logit? known",
        ),
        (
            ["finetune", "-m", "+table=2", "task.limits.test=8"],
            "task.limits is unknown; known: kind, num_train, num_validation, seed; for what the "
            "table's own choices have, write it as +task.limits=",
        ),
        (["finetune", "seed.x=1"], "Could not override 'seed.x'"),
        (["finetune", "training.max_steps"], "training.max_steps"),
        (["finetune", "sparsity.target=1.5"], "sparsity.target"),
        (["finetune", "sparsity.target=0.97"], "out of reach"),
        (["finetune", "run.output_dir=/dev/null"], "aaa: run.output_dir cannot be made: "),
        (["finetune", "-m", "run.output_dir=/dev/null"], "aaa: run.output_dir cannot be made: "),
        (["pretrain", "run.output_dir=/proc/nope"], "aaa: run.output_dir cannot be made: "),
        (["finetune", "task=rte", "data.path=./nowhere"], "there is no folder './nowhere'"),
        (["pretrain", "task=cola"], "Could not override 'task'"),
        (
            ["pretrain", "corpus=wikipedia", "data.path=./nowhere"],
            "there is no folder './nowhere'",
        ),
        (["pretrain", "corpus=wikipedia", "data.path=no/such"], "no/such"),
        (["pretrain", "pattern=syntax"], "dependency parses"),
        (["pretrain", "data.max_length=65"], "takes at most 64 tokens"),
        (["table", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_wrong_input_is_a_clear_message_and_exit_code_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In this process: to start one takes most of what imports torch some ten seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["aaa", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    heard = capfd.readouterr().err
    assert ended.value.code == 2, heard
    assert said in heard
    assert "Traceback" not in heard
    assert not list(tmp_path.glob("outputs/runs/*/result.json"))


def test_no_network_is_said(tmp_path: Path) -> None:
    """The tests' environment forbids the hub, so that the answer comes at once."""
    done = aaa("finetune", "scale=small", "task=rte", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "nyu-mll/glue" in done.stderr or "MiniLM" in done.stderr
    assert "no network" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_job_does_not_stop_the_others(tmp_path: Path) -> None:
    small = ["task.num_train=16", "task.num_validation=8", "training.max_steps=1"]
    sweep = ["-m", *small, "run.progress=false", "sparsity.target=0.3,0.99"]
    done = aaa("finetune", *sweep, cwd=tmp_path)
    assert done.returncode == 2
    assert "sparsity.target=0.99 is out of reach" in done.stderr
    assert len(list(tmp_path.glob("outputs/runs/*/result.json"))) == 1


def test_an_unexpected_failure_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from aaa.experiments import run as run_module

    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(run_module, "_work", fail)
    small = ["task.num_train=16", "task.num_validation=8", f"run.output_dir={tmp_path}"]
    assert cli.train("finetune", small) == 1
    assert "no such luck" in capsys.readouterr().err
