"""``aaa table`` as people type it."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aaa import cli
from aaa.experiments.tables.index import write_records
from aaa.experiments.tables.spec import load_table, table_folder
from aaa.report.main import main
from aaa.report.measured import load, save
from tests.report.fakes import record, table_4, write_run, write_sweep
from tests.wandb_files import written_runs


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """One seed of two columns of Table 4 at demo scale; the third is missing."""
    spec = load_table("4", "demo")
    write_sweep(tmp_path, replace(spec, columns=spec.columns[:2]))
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


class TestNamed:
    def test_it_is_shown_and_written(
        self, outputs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["4", "--output-dir", str(outputs)]) == 0
        text = shown(capsys)
        assert "Table 4: Fixed sparse patterns against Adaptive Axis Attention" in text
        assert "16 of 24 runs are finished, missing: 8." in text
        folder = outputs / "tables" / "table_4.demo"
        assert f"written: {folder / 'table_4.html'}" in text
        assert text.endswith(f"next: aaa finetune -m +table=4 scale=demo run.output_dir={outputs}")
        assert "Table 4: Fixed" in (folder / "table_4.md").read_text()

    def test_a_failed_cell_has_its_own_next_step(
        self, outputs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        spec = load_table("4", "demo")
        cell = next(cell for cell in spec.cells() if cell.column == spec.columns[2].name)
        write_run(outputs, "broken", status="failed", error="RuntimeError: no")
        write_records(outputs, spec, [record(cell, "broken")])
        main(["4", "--output-dir", str(outputs)])
        text = shown(capsys)
        assert "RuntimeError: no" in text
        again = f"+table=4 scale=demo run.output_dir={outputs} retry_failed=true"
        assert f"next: aaa finetune -m {again}" in text

    def test_the_next_step_says_what_the_sweep_was_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """To all cells: neither to some alone, nor the folder of what each starts from."""
        spec = load_table("3", "demo")
        cells = spec.cells(rows=[spec.cells()[0].row])[:2]
        told = ("pattern.source='x'", "data.path=my data", f"run.output_dir={tmp_path}", "a=1")
        records = [
            replace(record(cell), overrides=(*cell.overrides, *told, f"b={cell.column}"))
            for cell in cells
        ]
        write_records(tmp_path, spec, records)
        main(["3", "--output-dir", str(tmp_path)])
        command = shlex.split(shown(capsys).partition("next: ")[2])
        assert command[3:] == [
            "+table=3", "scale=demo", "data.path=my data", "a=1", f"run.output_dir={tmp_path}",
        ]  # fmt: skip

    def test_the_largest_scale_that_was_begun_unless_told(
        self, outputs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        small = load_table("4", "small")
        write_sweep(outputs, replace(small, columns=small.columns[:1], seeds=(0,)))
        main(["4", "--output-dir", str(outputs)])
        text = shown(capsys)
        assert "at scale small; there is also --scale demo" in text
        assert (outputs / "tables" / "table_4.small" / "table_4.json").exists()
        main(["4", "--output-dir", str(outputs), "--scale", "demo"])
        assert "· scale demo" in shown(capsys)

    def test_a_table_of_ones_own(self, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = outputs / "table_of my own.yaml"
        path.write_text((table_folder() / "table_4.yaml").read_text())
        assert main([str(path), "--output-dir", str(outputs), "--to", str(outputs / "x")]) == 0
        text = shown(capsys)
        assert "0 of 24 runs are finished" in text
        command = shlex.split(text.partition("next: ")[2])
        own = [f"+table={path}", "scale=demo", f"run.output_dir={outputs}"]
        assert command == ["aaa", "finetune", "-m", *own]
        assert (outputs / "x" / "table_of my own.html").exists()

    def test_it_loads_neither_torch_nor_hydra(self, outputs: Path) -> None:
        code = (
            "import sys; from aaa.report.main import main; "
            f"main(['4', '--output-dir', {str(outputs)!r}]); "
            "print(sorted({'torch', 'hydra', 'transformers', 'wandb'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"

    @pytest.mark.slow
    def test_500_cells_take_less_than_five_seconds(self, tmp_path: Path) -> None:
        """Of processor time, since other tests may run beside it."""
        path = tmp_path / "mine.yaml"
        text = (table_folder() / "table_4.yaml").read_text()
        path.write_text(f"{text}scales:\n  paper:\n    seeds: {list(range(8))}\n")
        spec = load_table(str(path), "paper")
        assert len(spec.cells()) == 512
        write_sweep(tmp_path, spec, num_logged=300)
        command = [sys.executable, "-m", "aaa", "table", str(path), "--output-dir", str(tmp_path)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "over 8 seeds" in done.stdout
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


class TestKept:
    def test_it_is_shown_without_its_runs(
        self, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main(["4", "--output-dir", str(outputs)])
        first = capsys.readouterr().out
        kept = outputs / "tables" / "table_4.demo" / "table_4.json"
        path = kept.rename(tmp_path / "kept.json")
        assert main(["4", "--results", str(path), "--to", str(tmp_path / "again")]) == 0
        again = capsys.readouterr().out
        assert again.split("written:")[0] == first.split("written:")[0]
        for suffix in ("md", "csv", "tex", "html", "json"):
            name = f"table_4.{suffix}"
            written = kept.parent / name if suffix != "json" else path
            assert (tmp_path / "again" / name).read_bytes() == written.read_bytes()

    def test_it_fills_what_is_missing_here(
        self, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rest = tmp_path / "rest"
        spec = load_table("4", "demo")
        write_sweep(rest, replace(spec, columns=spec.columns[2:]))
        main(["4", "--output-dir", str(rest)])
        kept = rest / "tables" / "table_4.demo" / "table_4.json"
        capsys.readouterr()
        assert main(["4", "--output-dir", str(outputs), "--fill", str(kept)]) == 0
        text = shown(capsys)
        assert "missing: 8" not in text
        assert "next:" not in text
        written = load(outputs / "tables" / "table_4.demo" / "table_4.json")
        assert {run.status for _, _, run in written.runs()} == {"finished"}

    def test_what_an_older_recipe_has_left_is_said_and_not_shown(
        self, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        spec = load_table("4", "demo")
        main(["4", "--output-dir", str(outputs)])
        kept = outputs / "tables" / "table_4.demo" / "table_4.json"
        cell = spec.cells()[0]
        write_records(tmp_path / "new", spec, [record(cell, "another")])
        capsys.readouterr()
        main(["4", "--output-dir", str(tmp_path / "new"), "--fill", str(kept)])
        text = shown(capsys)
        where = f"{cell.row} · {cell.column} · seed {cell.seed}"
        assert f"left out, 1 run has other settings than the cell has now: {where}" in text
        assert "15 of 24 runs are finished, missing: 9." in text

    def test_another_table_than_said(self, tmp_path: Path) -> None:
        path = save(table_4(seeds=1), tmp_path / "t.json")
        assert main(["--results", str(path)]) == 0
        with pytest.raises(ValueError, match="holds table_4, not table_5"):
            main(["5", "--results", str(path)])

    def test_another_scale_than_said(self, tmp_path: Path) -> None:
        path = save(table_4(seeds=1), tmp_path / "t.json")
        assert main(["4", "--scale", "small", "--results", str(path)]) == 0
        with pytest.raises(ValueError, match="holds table_4 at scale small, not demo; leave --s"):
            main(["--scale", "demo", "--results", str(path)])
        path = save(replace(table_4(seeds=1), name="runs-tiny", scale=None), tmp_path / "r.json")
        with pytest.raises(ValueError, match="holds runs-tiny at no scale, not demo"):
            main(["--scale", "demo", "--results", str(path)])

    def test_what_is_no_table(self, tmp_path: Path) -> None:
        (tmp_path / "t.json").write_text(json.dumps({"a": 1}))
        with pytest.raises(ValueError, match="no measured table"):
            main(["--results", str(tmp_path / "t.json")])


class TestRuns:
    def test_folders_of_runs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for seed in (0, 1):
            write_run(tmp_path, f"r{seed}", seed=seed, score=50 + seed)
        runs = str(tmp_path / "runs")
        assert main([runs, str(tmp_path / "runs" / "r0"), "--to", str(tmp_path / "out")]) == 0
        assert "50.5 ± 0.7" in shown(capsys)
        assert "50.5 ± 0.7" in (tmp_path / "out" / "runs-tiny.md").read_text()

    def test_filters(self, tmp_path: Path) -> None:
        write_run(tmp_path, "r")
        runs = str(tmp_path / "runs")
        assert main([runs, "--pattern", "full", "--task", "cola", "--model", "tiny"]) == 0
        with pytest.raises(ValueError, match="no finished run has"):
            main([runs, "--task", "rte"])

    def test_without_anything_those_of_the_output_folder(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_run(tmp_path, "r")
        assert main(["--output-dir", str(tmp_path)]) == 0
        assert "Runs of tiny" in shown(capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder nowhere, and table 'nowhere' is unknown; known: break"),
        (["9"], "table '9' is unknown"),
        (["4", "--scale", "huge"], "scale 'huge' is unknown; known: demo, small, paper"),
        (["4", "--statistics"], "a named table takes neither folders nor --statistics"),
        (["4", "--task", "rte"], "a named table takes neither folders"),
        (["4", "5", "--fill", "t.json"], "--fill goes with one named table"),
        (["--results", "t.json", "--fill", "t.json"], "--fill goes with one named table"),
        (["--results", "t.json", "--statistics"], "a kept table does not take --statistics"),
        (["4", "--results", "t.json", "--task", "rte"], "a kept table does not take --task"),
        (["--results", "t.json", "--pattern", "aaa", "--model", "tiny"], "--pattern, --model: th"),
        (["--scale", "small"], "--scale goes with a named table, as in aaa table 4"),
        ([".", "--scale", "small"], "--scale goes with a named table, as in aaa table 4"),
        ([".", "--statistics", "--scale", "small"], "--scale goes with a named table"),
        ([".", "--statistics", "--wandb", "offline"], "--wandb goes with tables"),
    ],
)
def test_wrong_input_is_said(arguments: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=r"folder|table|scale") as error:
        main(arguments)
    assert said in str(error.value)
    with pytest.raises(SystemExit) as end:
        cli.table(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "{file}"], "{file} is no folder that can be written to (File exists)"),
        (["--to", "/proc/x"], "/proc/x is no folder that can be written to (No such file"),
        (["--output-dir", "{file}"], "{file}/tables/table_4.demo.json cannot be read: Not a dir"),
        (["--output-dir", "{file}/x"], "x/tables/table_4.demo.json cannot be read: Not a dir"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_written_is_said_before_anything_is_shown(
    outputs: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(outputs, replace(load_table("4", "small"), seeds=(0,)))  # two scales: said, too
    file = outputs / "a file"
    file.touch()
    with pytest.raises(SystemExit) as end:
        cli.table(
            ["4", "--output-dir", str(outputs), *(word.format(file=file) for word in arguments)]
        )
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said.format(file=file) in captured.err
    assert captured.err.count("\n") == 1


def test_that_wandb_knows_no_key_is_said_before_anything_is_shown(outputs: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "WANDB_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-m", "aaa", "table", "4", "--output-dir", outputs, "--wandb", "online"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=environment | {"NETRC": str(outputs / "none"), "WANDB_CONFIG_DIR": str(outputs / "c")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aaa: --wandb online: No API key configured.")
    assert done.stderr.count("\n") == 1


def test_a_table_at_wandb(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["4", "--output-dir", str(outputs), "--wandb", "offline", "--to", str(outputs / "x")])
    assert f"logged to W&B: {outputs}" in shown(capsys)
    [written] = written_runs(outputs / "tables")
    assert written.run["run_id"] == written.run["run_group"] == "table_4.demo"
    assert written.run["job_type"] == "table"
    table = written.table("table")
    assert len(table["data"]) == 24
    lines = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    [line] = [line for line in lines if (line["row"], line["column"]) == ("full", "stsb")]
    kept = load(outputs / "x" / "table_4.json").cell("full", "stsb")
    assert line["score_mean"] == pytest.approx(kept.values("score")[0])
    assert line["score_paper"] == 88
    media = set(written.media())
    assert {"page", "score-against-rho", "differences"} <= media
    assert written.config["commit"] == ["0123abc"]
