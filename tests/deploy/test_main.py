"""``aaa bench`` and ``aaa export`` as people type them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aaa import cli
from aaa.deploy import main as module
from aaa.deploy.main import bench_main, export_main
from aaa.deploy.onnx import Check

QUICK = ["rounds=1", "texts=5", "batch=2"]


def test_bench_of_a_run(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_main([f"run={finished_run}", *QUICK, "executor=gathered"]) == 0
    out = capsys.readouterr().out
    assert "5 text(s) of" in out
    assert "3 batch(es), CPU" in out
    assert [line.split()[0] for line in out.splitlines() if "×" in line] == [
        "layer", "layer", "layer", "all", "model",
    ]  # fmt: skip
    assert out.splitlines()[-1].startswith("next: aaa ")


def test_bench_of_a_text_and_of_a_length(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ["text=the red key", "text_pair=a blue key"]
    assert bench_main([f"run={finished_run / 'model'}", *text, "rounds=1"]) == 0
    assert "1 text(s) of" in capsys.readouterr().out
    assert bench_main([f"run={finished_run / 'model'}", *text, "rounds=1", "tokens=50"]) == 0
    assert "1 text(s) of 50 to 50 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rounds=1"], "takes run="),
        (["run=nowhere"], "there is no run 'nowhere'"),
        (["run=RUN", "executor=fast"], "executor 'fast' is unknown; known: auto"),
        (["run=RUN", "device=tpu"], "device= is cpu or cuda"),
        (["run=RUN", "rounds=0"], "rounds= is a whole number from 1"),
        (["run=RUN", "text_pair=a key"], "text_pair= goes with text="),
        (["run=RUN/model"], "has no texts: give text="),
        (["run=RUN", "tokens=5000"], "tokens= is a whole number from 2 to 64"),
    ],
)
def test_bench_refuses(arguments: list[str], said: str, finished_run: Path) -> None:
    with pytest.raises(ValueError, match=said):
        bench_main([argument.replace("RUN", str(finished_run)) for argument in arguments])


def test_export_of_a_run(
    finished_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def exported(folder: Path, target: Path, longest: int) -> list[Check]:
        asked.append((folder, target, longest))
        target.parent.mkdir(parents=True)
        return [Check(1, 2, 1e-7), Check(3, longest, 2e-6)]

    monkeypatch.setattr(module, "export_onnx", exported)
    output = finished_run / "elsewhere"
    assert export_main([f"run={finished_run}", "longest=48", f"output={output}"]) == 0
    assert asked == [(finished_run / "model", output / "model.onnx", 48)]
    out = capsys.readouterr().out
    assert "2.0e-06" in out
    assert out.splitlines()[-2] == f"written: {output / 'model.onnx'}"
    assert out.splitlines()[-1].startswith("next: aaa bench run=")
    assert (output / "tokenizer.json").is_file()
    shutil.rmtree(output)


@pytest.mark.parametrize("command", ["bench", "export"])
def test_help_and_exit_code(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = getattr(cli, command)
    assert run(["--help"]) == 0
    assert f"aaa {command} run=RUN" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run(["ran=1"])
    assert stop.value.code == cli.USER_ERROR
    assert f"aaa {command} (see --help): option 'ran=' is unknown" in capsys.readouterr().err
