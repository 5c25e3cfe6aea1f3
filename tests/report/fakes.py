"""Believable results: made-up runs around the paper's figures, in memory and on disk."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aaa.experiments.result import write_result
from aaa.experiments.tables.cells import Cell as SpecCell
from aaa.experiments.tables.cells import Table
from aaa.experiments.tables.index import Record, write_records
from aaa.report.measured import Cell, Column, Measured, Row, Run

# Table 4: (ρ, score) by task, in the order of TASKS.
TASKS = ("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
LABELS = {"mnli": "MNLI", "qqp": "QQP", "qnli": "QNLI", "sst2": "SST-2", "cola": "CoLA",
          "stsb": "STS-B", "mrpc": "MRPC", "rte": "RTE"}  # fmt: skip
METRICS = {"mnli": "Acc (mm)", "qqp": "F1", "cola": "Mcc", "stsb": "Spr", "mrpc": "F1"}
PAPER = {
    "full": "0 84 0 88 0 91 0 92 0 54 0 88 0 89 0 62",
    "local2_global2": "76 77 70 85 82 84 64 90 34 48 70 42 83 78 84 53",
    "local3_global1": "76 77 70 83 82 80 63 89 34 48 70 31 83 79 84 53",
    "aaa_1": "77 81 73 85 82 86 65 89 36 56 72 79 86 83 85 58",
    "local2_global1_random1": "80 77 76 84 85 79 70 90 45 44 75 44 86 82 87 56",
    "aaa_2": "81 80 82 85 85 86 84 89 76 50 82 75 89 80 89 56",
    "local1_global1_random2": "85 77 81 84 88 80 77 90 57 33 81 49 89 79 89 49",
    "aaa_3": "86 80 86 85 88 86 84 89 76 50 86 67 89 80 89 56",
}
ROWS = (
    Row("full", "Full"),
    Row("local2_global2", "Local₂ + Global₂"),
    Row("local3_global1", "Local₃ + Global₁"),
    Row("aaa_1", "AAA", "local2_global2", learned=True),
    Row("local2_global1_random1", "Local₂ + Global₁ + Random₁"),
    Row("aaa_2", "AAA", "local2_global1_random1", learned=True),
    Row("local1_global1_random2", "Local₁ + Global₁ + Random₂"),
    Row("aaa_3", "AAA", "local1_global1_random2", learned=True),
)


def table_4(
    seeds: int = 3, tasks: tuple[str, ...] = TASKS, rows: tuple[Row, ...] = ROWS
) -> Measured:
    """Finished runs in all cells, near the paper's figures."""
    chance = random.Random(0)
    cells = {
        (row.name, task): Cell(
            tuple(run(chance, row.learned, seed, *paper) for seed in range(seeds)),
            dict(zip(("rho", "score"), map(float, paper), strict=True)),
        )
        for row in rows
        for task, paper in zip(TASKS, _pairs(PAPER[row.name]), strict=True)
        if task in tasks
    }
    columns = tuple(Column(task, LABELS[task], METRICS.get(task, "Acc")) for task in tasks)
    return Measured(
        "table_4", "Table 4: fixed patterns and Adaptive Axis Attention", rows, columns, cells,
        scale="small",
        source="Wang et al. 2022, Table 4",
        facts={"model": ["minilm"], "commit": ["0123456789abcdef"], "processor": ["a <fake> CPU"]},
    )  # fmt: skip


def lines_series() -> Measured:
    """A figure of two lines with a shared beginning."""
    rows = (
        Row("none", "none", x=0),
        *(Row(f"{s}{x}", f"{s}{x}", series=s, x=x) for s in ("up", "down") for x in (1, 2)),
    )
    cells = {
        (row.name, "rte"): Cell((Run(0, "finished", row.name, {"score": 50.0 + 2 * number}),))
        for number, row in enumerate(rows)
    }
    return Measured(
        "figure_2", "Figure 2", rows, (Column("rte", "RTE", "Acc"),), cells, quantities=("score",)
    )


def run(chance: random.Random, learned: bool, seed: int, rho: int, score: int) -> Run:
    """One seed: a learned pattern misses its ρ by a little, scores differ over seeds."""
    sparsity = min(99.0, max(0.0, rho + (chance.gauss(0, 0.6) if learned else -0.3)))
    final = score + chance.gauss(0, 1.2)
    steps = [200, 400, 600]
    curves = {
        "score": [(step, final - 8 * (1 - step / 600)) for step in steps],
        "rho": [(step, sparsity * min(1, step / 400)) for step in steps],
    }
    name = f"{chance.getrandbits(48):012x}"
    figures = {"score": final, "rho": 0.0 if rho == 0 else sparsity}
    return Run(seed, "finished", name, figures, curves=curves)


def _pairs(text: str) -> Iterator[tuple[int, int]]:
    numbers = [int(word) for word in text.split()]
    return zip(numbers[::2], numbers[1::2], strict=True)


def result(**changes: Any) -> dict[str, Any]:
    """A finished run's result.json."""
    config: dict[str, Any] = {
        "pattern": {"_target_": "x"},
        "training": {"learning_rate": 1e-3},
        "data": {"path": "p", "revision": None, "max_length": 128},
        "sparsity": {"target": 0.7, "alpha": 10.0},
    }
    made: dict[str, Any] = {
        "status": "finished", "run_id": "r", "cell_id": "c", "model": "tiny", "task": "cola",
        "pattern": "full", "seed": 0, "score": 50.0, "sparsity": 0.0, "sparsity_target": None,
        "headline": "matthews", "config": config, "steps": 600, "git_commit": "0123abc",
        "versions": {"torch": "2.0"}, "wall_seconds": 36.0,
        "hardware": {"device": "cpu", "processor": "a CPU", "accelerator": None, "processes": 1},
    }  # fmt: skip
    made.update(changes)
    return {"metrics": {"validation": {"matthews": made["score"] / 100}}} | made


def write_run(
    output_dir: Path, run_id: str, metrics: Iterable[tuple[int, str, float]] = (), **changes: Any
) -> Path:
    """A finished run's directory."""
    directory = output_dir / "runs" / run_id
    directory.mkdir(parents=True)
    write_result(directory, result(run_id=run_id, **changes))
    lines = "".join(f"{step},{name},{value}\n" for step, name, value in metrics)
    (directory / "metrics.csv").write_text(f"step,name,value\n{lines}")
    return directory


def write_sweep(output_dir: Path, table: Table, num_logged: int = 60) -> list[Record]:
    """Finished runs of all cells of a table, and its index."""
    chance = random.Random(f"{table.name} {table.scale}")
    records = []
    for cell in table.cells():
        stated = (table.paper(cell.row, cell.column, name) for name in ("rho", "score"))
        rho, score = (50.0 if figure is None else figure for figure in stated)
        run_id = f"{chance.getrandbits(48):012x}"
        is_learned = table.row(cell.row).target is not None
        write_run(
            output_dir, run_id, metrics_of(score, num_logged, is_learned), seed=cell.seed,
            score=score + chance.gauss(0, 1.2), sparsity=0.01 * rho,
            sparsity_target=0.01 * rho if is_learned else None,
            row_share=[0.01 * chance.random()] * 12, column_share=[0.02 * chance.random()] * 12,
        )  # fmt: skip
        records.append(record(cell, run_id))
    write_records(output_dir, table, records)
    return records


def record(cell: SpecCell, run_id: str | None = None, **changes: Any) -> Record:
    """What an index says of a cell."""
    return Record(cell.row, cell.column, cell.seed, cell.overrides, run_id, **changes)


def metrics_of(score: float, count: int, is_learned: bool) -> Iterator[tuple[int, str, float]]:
    """What metrics.csv holds of a run of 10 steps for each of ``count`` lines of each name."""
    names = ["loss", "rho", "learning_rate"] + (["alpha", "gap", "target"] if is_learned else [])
    for number in range(1, count + 1):
        yield from ((10 * number, f"train/{name}", 1 / number) for name in names)
        if number % (count // 3) == 0:
            yield 10 * number, "validation/matthews", 0.01 * (score - 30 / number)
            yield 10 * number, "validation/rho", 0.7
            for layer in range(12):
                yield 10 * number, f"validation/rho_layer_{layer}", 0.7
