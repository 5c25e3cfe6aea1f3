"""``aaa table``: which table is wanted, from which results, and where it goes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from aaa.experiments.sweep.options import as_written
from aaa.experiments.tables.cells import Table
from aaa.experiments.tables.index import given_to_all, index_path, read_records
from aaa.experiments.tables.spec import find_table, load_table, scales_of
from aaa.report.axes import axes_markdown, has_axes, show_axes
from aaa.report.collect import collect
from aaa.report.files import make_folder, write_files
from aaa.report.fill import fill, of_other_settings
from aaa.report.measured import FAILED, INTERRUPTED, MISSING, Measured, load
from aaa.report.runs import Found, read_runs, tables_of
from aaa.report.terminal import show
from aaa.report.wording import Wording

DESCRIPTION = """\
Tables from the results of runs.

  aaa table 4                         a table of the paper (or figure_2, breaking_bert_masks, ...,
                                      or a yaml of your own), from what has been measured so far
  aaa table 4 --scale small           ... at a scale; without, the largest that has runs
  aaa table --results FILE.json       a measured table that was kept, without its runs
  aaa table 4 --fill FILE.json        runs of here, and kept ones where there are none here
  aaa table [FOLDER ...]              any runs, patterns x tasks (outputs/runs without a folder)

A named table is also written as HTML page, Markdown, LaTeX, CSV, JSON and pictures.
"""
OUTPUT_DIR = "run.output_dir="  # of a sweep, as --output-dir is here
FILTERS = ("task", "pattern", "model")


def main(arguments: list[str]) -> int:
    """Shows the tables that the arguments ask for, and says where they are and what comes next.

    Raises:
        ValueError: for arguments that make no sense, or results that cannot be read.
    """
    options = _parser().parse_args(arguments)
    console = Console()
    named = [name for name in options.what if not Path(name).is_dir() and _is_table(name)]
    folders = [Path(name) for name in options.what if name not in named]
    _refuse_what_does_not_go_together(options, named, folders)
    if options.statistics:
        return _statistics(_runs(options, folders), options.to, console)
    notes: list[str] = []
    is_of_here = bool(named) and options.results is None
    specs = [_spec(name, options, notes) for name in named] if is_of_here else []
    tables = _tables(options, named, specs, folders, notes)
    places = [_place(options, table, is_of_here) for table in tables]
    _make_ready(options, places)
    for note in notes:
        _say(note, console)
    for table, place in zip(tables, places, strict=True):
        wording = Wording(table)
        show(wording, console)
        if place is not None:
            _write(wording, place, console)
        if options.wandb is not None:
            _log_to_wandb(table, options.wandb, options.output_dir, console)
    for name, spec, table in zip(named, specs, tables, strict=False):
        _say_next(name, spec, table, options.output_dir, console)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "aaa table", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", nargs="*", metavar="TABLE|FOLDER", help="tables' names, or folders of runs")
    add("--scale", help="demo, small, paper or another scale of the table")
    add("--results", type=Path, metavar="FILE", help="a measured table as JSON")
    add("--fill", type=Path, metavar="FILE", action="append", default=[],
        help="of a named table: a kept one whose runs stand in where there are none here; may be "
        "repeated, the first has the first word")  # fmt: skip
    add("--output-dir", type=Path, default=Path("outputs"), help="where runs are (outputs)")
    add("--to", type=Path, metavar="FOLDER",
        help="write page, Markdown, LaTeX, CSV, JSON and pictures there (a named table: "
        "OUTPUT_DIR/tables/NAME.SCALE)")  # fmt: skip
    add("--wandb", choices=("offline", "online"), help="also log the table to W&B")
    add("--statistics", action="store_true",
        help="of runs: instead, for each with a learned pattern, how many rows and columns are "
        "open, per layer and in total, in percent and as counts a text (Table 6), and of which "
        "tokens")  # fmt: skip
    for name in FILTERS:
        add(f"--{name}", action="append", help=f"of runs: only this {name}; may be repeated")
    return parser


def _is_table(name: str) -> bool:
    """Whether it is a table's name, or the path of one's yaml.

    Raises:
        ValueError: if it could be neither that nor a folder.
    """
    try:
        find_table(name)
    except ValueError as error:
        raise ValueError(f"there is no folder {name}, and {error}") from None
    return True


def _refuse_what_does_not_go_together(
    options: argparse.Namespace, named: Sequence[str], folders: Sequence[Path]
) -> None:
    """Rather than leave out of account what was asked for.

    Raises:
        ValueError: if an option is not for the table or the runs that are asked for.
    """
    of_runs = [f"--{name}" for name in ("statistics", *FILTERS) if getattr(options, name)]
    if options.fill and (options.results is not None or len(named) != 1):
        raise ValueError("--fill goes with one named table, as in aaa table 4 --fill FILE")
    if options.results is not None:
        if of_runs:
            raise ValueError(
                f"--results {options.results}: a kept table does not take {', '.join(of_runs)}: "
                "those are for runs"
            )
    elif not named:
        if options.scale is not None:
            raise ValueError("--scale goes with a named table, as in aaa table 4 --scale small")
        if options.statistics and options.wandb is not None:
            raise ValueError("--wandb goes with tables, not with --statistics")
    elif folders or of_runs:
        raise ValueError(
            f"{', '.join(named)}: a named table takes neither folders nor --statistics nor "
            f"{', '.join(f'--{name}' for name in FILTERS)}: those are for runs"
        )


def _tables(
    options: argparse.Namespace, named: Sequence[str], specs: Sequence[Table],
    folders: Sequence[Path], notes: list[str],
) -> list[Measured]:  # fmt: skip
    """What is to be shown; ``notes`` gets what is to be said of it first."""
    if options.results is not None:
        return [_kept(options.results, named, folders, options.scale)]
    if not named:
        return tables_of(_runs(options, folders))
    tables = [collect(spec, options.output_dir) for spec in specs]
    for path in options.fill:
        tables = [_filled(table, path, notes) for table in tables]
    return tables


def _place(options: argparse.Namespace, table: Measured, is_of_here: bool) -> Path | None:
    """The folder that a table is written to, if it is written."""
    if options.to is None and is_of_here:
        return Path(options.output_dir / "tables" / f"{table.name}.{table.scale}")
    return options.to


def _make_ready(options: argparse.Namespace, places: Iterable[Path | None]) -> None:
    """What could stand in the way of a table that was shown already.

    Raises:
        ValueError: if a folder cannot be made, or W&B not be logged in to.
    """
    if options.wandb == "online":
        from aaa.report.wandb_table import log_in

        log_in()
    for place in filter(None, places):
        make_folder(place)
    if options.wandb is not None:
        make_folder(options.output_dir / "tables")


def _kept(
    path: Path, named: Sequence[str], folders: Sequence[Path], scale: str | None
) -> Measured:
    """The kept table, which has to be what was asked for beside it."""
    table = load(path)
    names = [find_table(name).stem for name in named] + [str(folder) for folder in folders]
    if set(names) - {table.name}:
        raise ValueError(f"{path} holds {table.name}, not {', '.join(names)}")
    if scale not in (None, table.scale):
        at = "no scale" if table.scale is None else f"scale {table.scale}"
        raise ValueError(f"{path} holds {table.name} at {at}, not {scale}; leave --scale out")
    return table


def _spec(name: str, options: argparse.Namespace, notes: list[str]) -> Table:
    """The table at the scale wanted, or at the largest that has been begun."""
    if options.scale is not None:
        return load_table(name, options.scale)
    scales, stem = scales_of(name), find_table(name).stem
    begun = [known for known in scales if index_path(options.output_dir, stem, known).exists()]
    scale = begun[-1] if begun else scales[0]
    others = ", ".join(known for known in begun if known != scale)
    if others:
        notes.append(f"at scale {scale}; there is also --scale {others}")
    return load_table(name, scale)


def _filled(table: Measured, path: Path, notes: list[str]) -> Measured:
    """With the runs that are kept in a file; notes which of them are of other settings."""
    kept = load(path)
    filled = fill(table, kept)
    if others := of_other_settings(table, kept):
        of_what = "run has" if len(others) == 1 else "runs have"
        notes.append(
            f"{path}: left out, {len(others)} {of_what} other settings than the cell has now: "
            f"{', '.join(others)}"
        )
    return filled


def _runs(options: argparse.Namespace, folders: Sequence[Path]) -> list[Found]:
    wanted = {name: getattr(options, name) for name in FILTERS if getattr(options, name)}
    runs = [
        (result, place)
        for result, place in read_runs(folders or [options.output_dir / "runs"])
        if all(result[name] in values for name, values in wanted.items())
    ]
    if not runs:
        raise ValueError(f"no finished run has {wanted}")
    return runs


def _statistics(runs: Sequence[Found], folder: Path | None, console: Console) -> int:
    learned = [result for result, _ in runs if has_axes(result)]
    if not learned:
        raise ValueError("none of these runs has a learned pattern whose choices were counted")
    if folder is not None:
        make_folder(folder)
    for result in learned:
        show_axes(result, console)
    if folder is not None:
        path = folder / "statistics.md"
        path.write_text("\n".join(axes_markdown(result) for result in learned))
        _say(f"written: {path}", console)
    return 0


def _write(wording: Wording, folder: Path, console: Console) -> None:
    first, *others = write_files(wording, folder)
    kinds = ", ".join(sorted({path.suffix.lstrip(".") for path in others}))
    _say(f"written: {first} ({kinds} beside it)", console)


def _log_to_wandb(
    table: Measured, mode: Literal["online", "offline"], output_dir: Path, console: Console
) -> None:
    from aaa.report.wandb_table import log_table

    place = log_table(table, mode, output_dir)
    _say(f"logged to W&B: {place}", console)


def _say_next(name: str, spec: Table, table: Measured, output_dir: Path, console: Console) -> None:
    """The command that does what is missing, with the typed name and as a sweep was told to."""
    statuses = {run.status for _, _, run in table.runs()}
    records = read_records(index_path(output_dir, spec.name, spec.scale))
    words = ["aaa", "finetune", "-m", f"+table={name}", f"scale={spec.scale}"]
    words += [o for o in given_to_all(spec, records) if not o.startswith(OUTPUT_DIR)]
    if output_dir != Path("outputs"):
        words.append(f"{OUTPUT_DIR}{as_written(str(output_dir))}")
    command = shlex.join(words)
    if statuses & {MISSING, INTERRUPTED}:
        _say(f"next: {command}", console)
    if FAILED in statuses:
        _say(f"next: {command} retry_failed=true", console)


def _say(line: str, console: Console) -> None:
    """As it is: names and paths may look like markup."""
    console.print(line, soft_wrap=True, highlight=False, markup=False)
