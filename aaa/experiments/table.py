"""Tables of patterns x tasks from the results of runs. Reads JSON alone: no torch, no Hydra."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from aaa.experiments.axes import axes_markdown, has_axes, show_axes
from aaa.experiments.result import RESULT, is_finished, read_result

Result = dict[str, Any]

FILTERS = ("task", "pattern", "model")


@dataclass(frozen=True)
class Cell:
    """The runs that differ in nothing but their seed: rho and score, mean and spread over them."""

    results: tuple[Result, ...]

    @property
    def seeds(self) -> int:
        """How many runs are averaged."""
        return len(self.results)

    def figure(self, name: str) -> str:
        """``sparsity`` or ``score`` in percent, with the sample standard deviation."""
        values = [result[name] * (100 if name == "sparsity" else 1) for result in self.results]
        mean = f"{statistics.fmean(values):.1f}"
        return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


@dataclass(frozen=True)
class Table:
    """One encoder's cells by row (a pattern, and what else tells it apart) and by task."""

    title: str
    tasks: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]

    def header(self) -> list[str]:
        """The column heads: the pattern, then rho and score of each task."""
        return ["pattern", *(f"{task} {what}" for task in self.tasks for what in ("ρ", "score"))]

    def lines(self) -> list[list[str]]:
        """The body as text; a cell without a finished run is a dash."""
        lines = []
        for row, cells in self.rows.items():
            line = [row]
            for task in self.tasks:
                cell = cells.get(task)
                line += [cell.figure("sparsity"), cell.figure("score")] if cell else ["–", "–"]
            lines.append(line)
        return lines

    def seeds(self) -> str:
        """How many runs each cell averages."""
        counts = sorted({cell.seeds for cells in self.rows.values() for cell in cells.values()})
        return (
            f"{counts[0]}–{counts[-1]} seeds a cell"
            if len(counts) > 1
            else f"{counts[0]} seed(s) a cell"
        )


def read_runs(folders: Iterable[Path]) -> list[Result]:
    """The results in the given folders: each one a run's directory, or a folder of such.

    Raises:
        ValueError: if a folder is missing or holds no finished run.
    """
    results = []
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(
                f"there is no folder {folder}; runs lie under outputs/runs unless told otherwise"
            )
        directories = [folder] if (folder / RESULT).exists() else sorted(folder.iterdir())
        found = [read_result(directory) for directory in directories if directory.is_dir()]
        finished = [result for result in found if result is not None and is_finished(result)]
        if not finished:
            raise ValueError(f"{folder} holds no finished run (a directory with a {RESULT})")
        results += finished
    return list({result["run_id"]: result for result in results}.values())


def build_tables(results: Sequence[Result]) -> list[Table]:
    """One table an encoder: rows of patterns, columns of tasks."""
    return [
        _table(model, [result for result in results if result["model"] == model])
        for model in dict.fromkeys(result["model"] for result in results)
    ]


def markdown(table: Table) -> str:
    """The table as GitHub's Markdown."""
    rows = [table.header(), ["---"] + ["---:"] * (2 * len(table.tasks)), *table.lines()]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"**{table.title}** ({table.seeds()}; ρ and score in percent)\n\n{body}\n"


def show(table: Table, console: Console) -> None:
    """The table on a terminal."""
    caption = f"{table.seeds()}; score above ρ, both in percent"
    rich = RichTable(title=table.title, caption=caption, show_lines=True)
    rich.add_column("pattern", overflow="fold")
    for task in table.tasks:  # one column a task: eight of them must fit a terminal
        rich.add_column(task, justify="right", overflow="fold")
    for name, *figures in table.lines():
        pairs = zip(figures[::2], figures[1::2], strict=True)
        rich.add_row(name, *(f"{score}\nρ {rho}" for rho, score in pairs))
    console.print(rich)


def main(arguments: list[str]) -> int:
    """``aaa table [runs ...] [--markdown FILE] [--statistics]``."""
    parser = argparse.ArgumentParser("aaa table", description=main.__doc__)
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        default=[Path("outputs/runs")],
        help="runs' directories, or folders of them (default: outputs/runs)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also write the tables there"
    )
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="instead, for each run of a learned pattern: how many rows and columns are open, per "
        "layer and in total, in percent and as counts a text (Table 6), and of which tokens",
    )
    for name in FILTERS:
        parser.add_argument(
            f"--{name}", action="append", help=f"only this {name}; may be repeated"
        )
    options = parser.parse_args(arguments)
    wanted = {name: getattr(options, name) for name in FILTERS if getattr(options, name)}
    results = [
        result
        for result in read_runs(options.runs)
        if all(result[name] in values for name, values in wanted.items())
    ]
    if not results:
        raise ValueError(f"no finished run has {wanted}")
    console = Console()
    texts = _statistics(results, console) if options.statistics else _tables(results, console)
    if options.markdown is not None:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text("\n".join(texts))
        console.print(f"written: {options.markdown}", soft_wrap=True)
    return 0


def _tables(results: Sequence[Result], console: Console) -> list[str]:
    tables = build_tables(results)
    for table in tables:
        show(table, console)
    return [markdown(table) for table in tables]


def _statistics(results: Sequence[Result], console: Console) -> list[str]:
    learned = [result for result in results if has_axes(result)]
    if not learned:
        raise ValueError("none of these runs has a learned pattern whose choices were counted")
    for result in learned:
        show_axes(result, console)
    return [axes_markdown(result) for result in learned]


def _table(model: str, results: Sequence[Result]) -> Table:
    tasks = tuple(sorted({result["task"] for result in results}))
    rows: dict[str, dict[str, Cell]] = {}
    for pattern in sorted({result["pattern"] for result in results}, key=_order):
        cells: dict[tuple[str, str], list[Result]] = {}
        for result in results:
            if result["pattern"] == pattern:
                cells.setdefault((result["task"], result["cell_id"]), []).append(result)
        varying = _varying_settings([found[0] for found in cells.values()])
        for (task, cell_id), found in cells.items():
            row = ", ".join(
                [pattern, *(f"{key}={_settings(found[0]).get(key)}" for key in varying)]
            )
            if task in rows.get(row, {}):  # other weights or data under the same settings
                row = f"{row} ({cell_id})"
            rows.setdefault(row, {})[task] = Cell(tuple(found))
    return Table(model, tasks, rows)


def _order(pattern: str) -> tuple[int, str]:
    """Full attention first and adaptive axes last, as in the paper's tables."""
    return {"full": 0, "aaa": 2}.get(pattern, 1), pattern


def _varying_settings(cells: Sequence[Result]) -> list[str]:
    """The settings in which cells of one pattern differ though they are of one task."""
    varying = set()
    for task in {cell["task"] for cell in cells}:
        settings = [_settings(cell) for cell in cells if cell["task"] == task]
        keys = {key for values in settings for key in values}
        varying |= {key for key in keys if len({str(values.get(key)) for values in settings}) > 1}
    return sorted(varying)


def _settings(result: Result) -> dict[str, Any]:
    """What tells cells of one pattern and task apart, with dotted keys as on the command line."""
    groups = ["pattern", "training", "data"] + (
        ["sparsity"] if result["sparsity_target"] is not None else []
    )
    flat: dict[str, Any] = {}
    for group in groups:
        _flatten(group, result["config"][group], flat)
    return {key: value for key, value in flat.items() if key not in _NO_SETTINGS}


# Settings that do not decide a run's numbers, or are seen in the data's content.
_NO_SETTINGS = ("data.path", "data.revision")


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}.{key}", item, into)
    else:
        into[prefix] = value
