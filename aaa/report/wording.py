"""A measured table in words: what stands in each cell and below, whatever form it is shown in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from aaa.report.measured import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    MISSING,
    NEEDS,
    QUANTITIES,
    REFUSED,
    RUNNING,
    SCORE,
    Cell,
    Measured,
    Row,
)
from aaa.report.statistics import (
    DIGITS,
    LEVEL,
    Comparison,
    RowComparison,
    Spread,
    best,
    compare,
    compare_rows,
    shown,
    spread,
)

NOTHING = "–"
PAPER_SCALE = "paper"
SIGNIFICANT, SIGNIFICANT_ADJUSTED = "†", "‡"
WORDS = {
    FAILED: "failed",
    REFUSED: "refused",
    RUNNING: "running",
    INTERRUPTED: "interrupted",
    NEEDS: "waiting",
    MISSING: "missing",
}


@dataclass(frozen=True)
class Part:
    """One quantity of a cell: "79.1 ± 0.8", its arrow "↑ 5.2‡", and the paper's of both."""

    quantity: str
    value: str = ""
    arrow: str = ""
    paper: str = ""
    paper_arrow: str = ""

    @property
    def name(self) -> str:
        """As people know the quantity."""
        return QUANTITIES[self.quantity]


@dataclass(frozen=True)
class Shown:
    """One cell as text.

    Args:
        parts: a table's quantities in its order.
        main: the one of them that is compared.
        state: what became of the cell if no run has finished.
        note: how many runs are behind the figures if not all, and what became of the others.
        is_best: of its block and column.
    """

    parts: tuple[Part, ...]
    main: Part
    state: str = ""
    note: str = ""
    is_best: bool = False

    @property
    def main_text(self) -> str:
        """The main quantity's value, named if it is not the score; or what became of the cell."""
        main = self.main
        name = "" if main.quantity == SCORE or not main.value else main.name
        return " ".join(filter(None, (name, main.value or self.state)))

    @property
    def others(self) -> tuple[Part, ...]:
        """All parts but the main one."""
        return tuple(part for part in self.parts if part is not self.main)


class Wording:
    """A table in words: tests are made, and the best of each block found, once for all forms."""

    def __init__(self, table: Measured) -> None:
        self.table = table
        self.comparisons = compare(table)
        self.verdicts = compare_rows(table, self.comparisons)
        self._best = best(table)

    @property
    def title(self) -> str:
        """The table's title, with the scale at which it was measured."""
        return " · ".join(filter(None, (self.table.title, self.scale)))

    @property
    def scale(self) -> str:
        """ "scale small"; empty for a table of any runs."""
        return "" if self.table.scale is None else f"scale {self.table.scale}"

    def cell(self, row: str, column: str) -> Shown:
        """One cell."""
        cell = self.table.cell(row, column)
        parts = {
            quantity: _part(
                cell, quantity, self.comparisons.get((row, column)), quantity == self.table.main
            )
            for quantity in self.table.quantities
        }
        return Shown(
            parts=tuple(parts.values()),
            main=parts[self.table.main],
            state="" if cell.finished else became(cell),
            note=self._note(cell) if cell.finished else "",
            is_best=(row, column) in self._best,
        )

    def legend(self) -> list[str]:
        """What the table's signs mean and what is missing, in sentences."""
        return [
            self._units(), *self._setting(), *self._tests(), *self._states(), *self._quoted(),
            *self.table.notes,
        ]  # fmt: skip

    def _note(self, cell: Cell) -> str:
        parts = [f"n={len(cell.finished)}"] if len(cell.finished) < self.table.seeds else []
        others = Counter(run.status for run in cell.runs)
        return ", ".join(
            parts
            + [f"{others[status]} {word}" for status, word in WORDS.items() if others[status]]
        )

    def _units(self) -> str:
        names = " and ".join(QUANTITIES[quantity] for quantity in self.table.quantities)
        seeds = self.table.seeds
        if seeds > 1:
            return f"{names} in percent; mean ± standard deviation over {seeds} seeds."
        return f"{names} in percent; one seed." if seeds else f"{names} in percent."

    def _setting(self) -> list[str]:
        if not self.table.has_paper or self.table.scale in (None, PAPER_SCALE):
            return []
        return [f"The paper's figures are of its own tasks and setting, not of {self.scale}."]

    def _tests(self) -> list[str]:
        pairs = compared_pairs(self.table)
        if not pairs:
            return []
        sentences = [f"↑ ↓: difference to {pairs}."]
        if self._best:
            sentences.append("Bold: the best of rows that are compared with each other.")
        tested = [c for c in self.comparisons.values() if c.p_value is not None]
        if tested:
            sentences.append(
                f"{SIGNIFICANT}: p < {LEVEL} by Welch's t-test over seeds against it; "
                f"{SIGNIFICANT_ADJUSTED}: also with the false discovery rate over all "
                f"{len(tested)} tests of the table at {LEVEL} (Benjamini and Hochberg)."
            )
        reasons = Counter(
            c.reason for c in self.comparisons.values() if c.reason and c.difference is not None
        )
        sentences += [
            f"No test of {count} of {len(self.comparisons)} differences: {reason}."
            for reason, count in reasons.items()
        ]
        return sentences

    def _states(self) -> list[str]:
        states = Counter(run.status for _, _, run in self.table.runs())
        if set(states) <= {FINISHED}:
            return []
        parts = [f"{states[FINISHED]} of {states.total()} runs are finished"]
        parts += [f"{word}: {states[status]}" for status, word in WORDS.items() if states[status]]
        return [", ".join(parts) + ".", *self._notes()]

    def _notes(self) -> list[str]:
        """What failed and how, what is needed; each once, with the first place that it is of."""
        labels = unique_labels(self.table.rows)
        notes = Counter((run.status, run.note) for _, _, run in self.table.runs() if run.note)
        sentences = []
        for (status, note), count in notes.items():
            row, column, run = next(place for place in self.table.runs() if place[2].note == note)
            where = f"{labels[row.name]}, {column.label}, seed {run.seed}"
            more = f" and {count - 1} more" if count > 1 else ""
            sentences.append(f"{WORDS[status]}: {where}{more}: {run.short_note}")
        return sentences

    def _quoted(self) -> list[str]:
        return [
            f"{row.label}: quoted from {row.quoted}, not measured here."
            for row in self.table.rows
            if row.quoted
        ]


def number(found: Spread | None, hide_no_deviation: bool = False) -> str:
    """ "79.1 ± 0.8"; a single value has no deviation."""
    if found is None:
        return ""
    mean = f"{shown(found.mean):.{DIGITS}f}"
    if found.deviation is None or (hide_no_deviation and round(found.deviation, DIGITS) == 0):
        return mean
    return f"{mean} ± {found.deviation:.{DIGITS}f}"


def became(cell: Cell) -> str:
    """What became of a cell without a finished run, the most urgent of its runs first."""
    notes = {run.status: run.note for run in reversed(cell.runs) if run.status != MISSING}
    status = next((status for status in WORDS if status in notes), MISSING)
    if status == NEEDS:
        is_run = notes[status].startswith("aaa pretrain")
        return f"needs {'pre-training' if is_run else notes[status].partition('=')[0]}"
    return NOTHING if status == MISSING else WORDS[status]


def arrow(difference: float, digits: int = DIGITS) -> str:
    """ "↑ 5.2", "↓ 5.2" or "= 0.0"."""
    rounded = round(difference, digits)
    sign = "↑" if rounded > 0 else "↓" if rounded < 0 else "="
    return f"{sign} {abs(rounded):.{digits}f}"


def mark(comparison: Comparison) -> str:
    """The sign of a test that says that a difference is more than chance."""
    if comparison.p_value is None or comparison.p_value >= LEVEL:
        return ""
    assert comparison.p_adjusted is not None
    return SIGNIFICANT_ADJUSTED if comparison.p_adjusted < LEVEL else SIGNIFICANT


def p_text(value: float | None) -> str:
    """A p-value as papers print it."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def compared_pairs(table: Measured) -> str:
    """ "Full", or "the row compared with (AAA: Local₂ + Global₂; ...)"; empty if nothing is."""
    labels = {row.name: row.label for row in table.rows}
    others: dict[str, list[str]] = {}
    for row in table.rows:
        if row.compared_with is not None:
            others.setdefault(row.label, []).append(labels[row.compared_with])
    targets = list(dict.fromkeys(target for them in others.values() for target in them))
    if len(targets) <= 1:
        return "".join(targets)
    pairs = [f"{label}: {', '.join(dict.fromkeys(them))}" for label, them in others.items()]
    return f"the row compared with ({'; '.join(pairs)})"


def unique_labels(rows: Sequence[Row]) -> dict[str, str]:
    """A label for each row's name; rows of one label say what they are compared with."""
    labels = {row.name: row.label for row in rows}
    counts = Counter(labels.values())
    return {
        row.name: f"{row.label} (to {labels[row.compared_with]})"
        if counts[row.label] > 1 and row.compared_with in labels
        else row.label
        for row in rows
    }


def row_verdict(comparison: RowComparison) -> str:
    """ "4 of 5 won, 1 tied; on average ↑ 6.3"."""
    total = comparison.wins + comparison.ties + comparison.losses
    counts = f"{comparison.wins} of {total} won"
    if comparison.ties:
        counts += f", {comparison.ties} tied"
    return f"{counts}; on average {arrow(comparison.mean_difference)}"


def _part(cell: Cell, quantity: str, comparison: Comparison | None, is_main: bool) -> Part:
    value = number(spread(cell.values(quantity)), hide_no_deviation=not is_main)
    paper = f"{cell.paper[quantity]:g}" if quantity in cell.paper else ""
    if comparison is None or not is_main:
        return Part(quantity, value, paper=paper)
    difference, stated = comparison.shown, comparison.paper
    return Part(
        quantity,
        value,
        arrow="" if difference is None else arrow(difference) + mark(comparison),
        paper=paper,
        # As precise as the paper prints it.
        paper_arrow="" if stated is None else arrow(stated, 0 if stated % 1 == 0 else DIGITS),
    )
