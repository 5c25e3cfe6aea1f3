"""The command: what it writes, what it says, what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aaa import cli
from aaa.plots.main import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(capsys: pytest.CaptureFixture[str]) -> list[Path]:
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("next: aaa ")
    paths = [Path(line.removeprefix("written: ")) for line in out[:-1]]
    assert [path.suffix for path in paths] == [".png", ".svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
    return paths


@pytest.mark.parametrize(
    ("arguments", "stem"),
    [
        (["pattern=all"], "outputs/plots/all"),
        (["pattern=aaa"], "outputs/plots/aaa"),
        (["pattern=local2,full", "tokens=5"], "outputs/plots/local2-full"),
        (["pattern=local2", "pattern.size=4", "output=here/a.png"], "here/a"),
        (["pattern=aaa", "+pattern.axis.rows=false"], "outputs/plots/aaa"),
        (["pattern=local2_global2", "pattern.layers=6-11"], "outputs/plots/local2_global2"),
    ],
)
def test_patterns(arguments: list[str], stem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert written(capsys) == [Path(f"{stem}.png"), Path(f"{stem}.svg")]


def test_overrides_reach_the_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    from aaa.plots import main as module

    seen = []
    monkeypatch.setattr(module, "illustrate", lambda name, pattern, n: seen.append((pattern, n)))
    with pytest.raises(TypeError):  # nothing to draw came back
        main(["pattern=local2", "pattern.size=4", "tokens=9"])
    [(pattern, num_tokens)] = seen
    assert (str(pattern), num_tokens) == ("Local(4)", 9)


def test_a_run(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"run={finished_run}"]) == 0
    assert written(capsys)[0] == finished_run / "plots" / "course.png"
    assert main([f"run={finished_run}", "text=the red key", "text_pair=a key, a = b"]) == 0
    first = written(capsys)[0]
    assert main([f"run={finished_run}", "text=the blue key", "output=blue"]) == 0
    assert written(capsys)[0] == Path("blue.png")
    assert first.parent == finished_run / "plots"
    assert main([f"run={finished_run / 'model'}", "text=the red key"]) == 0
    assert written(capsys)[0].parent == finished_run / "model" / "plots"


def test_a_run_by_its_id(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs").mkdir()
    Path("outputs/runs").symlink_to(finished_run.parent)
    assert main([f"run={finished_run.name}"]) == 0
    assert written(capsys)[0] == Path("outputs/runs") / finished_run.name / "plots" / "course.png"


def test_a_source_by_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    model = Path("outputs/runs/0123456789ab/model/model.safetensors")
    model.parent.mkdir(parents=True)
    names = [f"encoder.layer.{n}.sparse.pattern.distance_weights_HK" for n in range(2)]
    save_file({name: torch.ones(2, 5) for name in names}, model)
    assert main(["pattern=diagonal_fixed_global1", "pattern.source=0123456789ab"]) == 0
    assert written(capsys)[0] == Path("outputs/plots/diagonal_fixed_global1.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "takes one of pattern= and run="),
        (["pattern=aaa", "run=x"], "takes one of pattern= and run="),
        (["patern=aaa"], "option 'patern=' is unknown, did you mean pattern="),
        (["aaa"], "option 'aaa' is unknown"),
        (["pattern="], "pattern= is empty"),
        (["pattern=aaaa"], "aaaa"),
        (["pattern=local2", "pattern.radius=1"], "radius"),
        (["pattern=aaa", "pattern.axis.rows=no"], "in this config: add it as +pattern.axis.rows="),
        (["pattern=aaa", "pattern.axis.rws=no"], "rws is unknown, did you mean rows? known: ini"),
        (["pattern=aaa", "pattern.layers=11-6"], "a range goes from lower to higher, 6-11"),
        (["pattern=local2", "pattern.size=-1"], "Local size is"),
        (["pattern=diagonal_fixed_global1"], "pattern.source is missing"),
        (["pattern=aaa", "tokens=0"], "tokens= is a whole number from 1 to 512, not '0'"),
        (["pattern=all", "tokens=many"], "from 8 to 512, not 'many'"),
        (["pattern=aaa", "text=x"], "text= does not go with pattern=; what does: pattern, tokens"),
        (["run=x", "pattern.size=1"], "pattern.KEY= does not go with run="),
        (["pattern=local2", "output=/proc/x"], "/proc/x cannot be written: "),
        (["run=nowhere"], "there is no run 'nowhere': give its directory, or its id"),
        (["run=.", "text_pair=x"], "go with text="),
        (["run=."], "is not a finished run"),
        (["run=.", "text=x"], "has no model/"),
        (["run=.", "text=x", "head=-1"], "head= is a whole number"),
    ],
)
def test_wrong_input(arguments: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        main(arguments)
    assert not list(Path().glob("**/*.png"))


def test_help_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.plot(["--help"]) == 0
    assert "aaa plot pattern=all" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.plot(["run=nowhere"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("aaa: there is no run 'nowhere'")
