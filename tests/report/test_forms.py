"""Markdown, LaTeX, CSV, the page and its pictures: right figures, nothing broken by odd text."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from aaa.plots.files import as_svg
from aaa.report.files import write_files
from aaa.report.latex import escape as escape_latex
from aaa.report.latex import latex
from aaa.report.markdown import markdown
from aaa.report.measured import Cell, Measured, Run
from aaa.report.page import page
from aaa.report.statistics import spread
from aaa.report.terminal import show
from aaa.report.tidy import as_csv
from aaa.report.wording import Wording
from tests.report.fakes import TASKS, lines_series, table_4

ODD = "50 % of <b>A_1</b> & $x^2$ | #1 {~} [a] *b* \\n"


# What no font of LaTeX has, or only some have; and what a line's end would take for its own.
STRANGE = ('"τ ≈ λ" é ñ ş ł ½ x² ™ ﬁ \N{FULLWIDTH PERCENT SIGN} 你 ✓ \u200b\x1b', "[h] T", "*", "")


def compiled(table: str, folder: Path, encoding: str = "T1") -> str:
    """What pdflatex says of a table, which it takes."""
    (folder / "t.tex").write_text(
        f"\\documentclass{{article}}\\usepackage[{encoding}]{{fontenc}}\n"
        "\\usepackage{booktabs,graphicx}\n"
        f"\\begin{{document}}\n{table}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    return said


class TestTerminal:
    @pytest.mark.parametrize("width", [60, 100, 300])
    def test_every_figure_is_there_at_any_width(self, wording: Wording, width: int) -> None:
        file = io.StringIO()
        show(wording, Console(file=file, width=width))
        text = file.getvalue()
        assert all(len(line) <= width for line in text.splitlines())
        for column in wording.table.columns:
            assert column.label in text
        shown = wording.cell("aaa_1", "stsb").main
        assert shown.value in text
        assert shown.arrow in text
        assert "(79 ↑ 37, ρ 72)" in text
        assert "n=2," in text

    def test_best_is_bold(self, wording: Wording) -> None:
        file = io.StringIO()
        show(wording, Console(file=file, width=300, force_terminal=True, color_system="standard"))
        value = wording.cell("aaa_1", "stsb").main.value
        assert f"\x1b[1m{value}\x1b[0m" in file.getvalue()


class TestMarkdown:
    def test_heads_say_what_a_score_is(self, wording: Wording) -> None:
        head = markdown(wording).splitlines()[2]
        assert head.startswith("|  | MNLI ρ | MNLI score (Acc (mm)) | QQP ρ | QQP score (F1) |")

    def test_cells(self, wording: Wording) -> None:
        lines = markdown(wording).splitlines()
        [aaa] = [line for line in lines if line.startswith("| AAA |") and "‡ (79 ↑ 37)" in line]
        shown = wording.cell("aaa_1", "stsb").main
        assert f"| **{shown.value}** {shown.arrow} (79 ↑ 37) |" in aaa
        assert aaa.endswith("| (85) | *needs pre-training* (58 ↑ 5) |")

    def test_every_line_of_a_table_has_as_many_cells(self, wording: Wording) -> None:
        odd = replace(wording.table, rows=(replace(wording.table.rows[0], label=ODD),))
        lines = [
            re.sub(r"\\.", "", line)
            for line in markdown(Wording(odd)).splitlines()
            if line.startswith("|")
        ]
        assert {line.count("|") for line in lines} == {2 + 2 * len(TASKS)}
        assert r"\<b\>A\_1" in markdown(Wording(odd))


class TestLatex:
    @pytest.mark.parametrize(
        ("text", "escaped"),
        [
            ("a & b_c", r"a \& b\_c"),
            ("50 % #1", r"50 \% \#1"),
            ("{$x^2$}", r"\{\$x\textasciicircum{}2\$\}"),
            ("Local₂ + Global₁₂", "Local$_{2}$ + Global$_{12}$"),
            ("ρ ↑ 5†", r"$\rho$ $\uparrow$ 5$\dagger$"),
            ("a\\b~", r"a\textbackslash{}b\textasciitilde{}"),
            ('say "no"', "say ''no''"),  # OT1 has no straight quotation mark
            ("τ ≈ λ, 10⁻³ or x²", r"$\tau$ $\approx$ $\lambda$, 10$^{-}$$^{3}$ or x$^{2}$"),
            ("Zoë, Çağ, Łódź", r"Zo\"{e}, \c{C}a\u{g}, \L{}\'{o}d\'{z}"),
            ("e\u0301 ą ế", r"\'{e} a \^{e}"),
            ("½ ™ ﬁ ① \N{FULLWIDTH PERCENT SIGN}", r"1/2 TM fi 1 \%"),
            ("你 й ✓", "? ? ?"),
            ("a\u200b\x1bb\nc\u00a0d", "ab c d"),
        ],
    )
    def test_escaping(self, text: str, escaped: str) -> None:
        assert escape_latex(text) == escaped
        assert escape_latex(text).isascii()
        assert escape_latex(text).isprintable()

    def test_no_label_is_taken_for_an_argument_of_the_line_before(self) -> None:
        """\\\\ and \\midrule look for "[" and "*" beyond the end of the line."""
        made = table_4(seeds=1, tasks=TASKS[:1])
        rows = [replace(made.rows[0], label=label) for label in ("[2mm] a", "* b", "c")]
        named = tuple(replace(row, name=str(place)) for place, row in enumerate(rows))
        body = latex(Wording(replace(made, rows=named, cells={}))).partition("\\midrule\n")[2]
        lines = body.partition("\\bottomrule")[0].splitlines()
        assert [line.split(" &")[0] for line in lines] == ["{}[2mm] a", "{}* b", "{}c"]

    def test_every_line_has_as_many_cells(self, wording: Wording) -> None:
        text = latex(wording)
        body = text[text.index("\\toprule") : text.index("\\bottomrule")].splitlines()
        cells = [re.sub(r"\\&", "", line).count("&") for line in body if line.endswith("\\\\")]
        assert cells[0] == len(TASKS)
        assert set(cells[1:]) == {2 * len(TASKS)}

    def test_every_quantity_over_several_seeds_has_its_deviation(self, wording: Wording) -> None:
        shown = wording.cell("aaa_1", "stsb")
        deviations = [part.value.partition(" ± ")[2] for part in shown.parts]
        assert all(deviations)
        text = latex(wording)
        assert "mean $\\pm$ standard deviation" in text
        for part, deviation in zip(shown.parts, deviations, strict=True):
            mean = part.value.partition(" ± ")[0]
            mean = f"\\textbf{{{mean}}}" if part is shown.main else mean
            assert f"& {mean}\\,{{\\scriptsize $\\pm${deviation}" in text

    def test_ours_above_the_papers_best_in_bold(self, wording: Wording) -> None:
        text = latex(wording)
        mean, _, deviation = wording.cell("aaa_1", "stsb").main.value.partition(" ± ")
        assert f"\\textbf{{{mean}}}\\,{{\\scriptsize $\\pm${deviation}" in text
        assert "\\scriptsize 79$\\uparrow$37" in text

    def test_a_negative_score_has_a_minus(self) -> None:
        table = lines_series()
        run = Run(0, "finished", "none", {"score": -8.9})
        cells = {**table.cells, ("none", "rte"): Cell((run,), {"score": -3})}
        text = latex(Wording(replace(table, cells=cells)))
        assert "$-$8.9" in text
        assert "\\scriptsize $-$3" in text
        assert "-8.9" not in text

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
    @pytest.mark.parametrize("tasks", [TASKS[:1], TASKS[:3], TASKS])
    def test_it_is_never_wider_than_the_page(self, tasks: tuple[str, ...], tmp_path: Path) -> None:
        made = table_4(tasks=tasks)
        label = "Local₂ + Global₁ + Random₁ (pre-train & fine-tune)"
        rows = tuple(replace(row, label=label) for row in made.rows)
        said = compiled(latex(Wording(replace(made, rows=rows))), tmp_path)
        assert "Overfull \\hbox" not in said

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
    def test_it_compiles(self, wording: Wording, tmp_path: Path) -> None:
        table = wording.table
        odd = replace(table, title=ODD, rows=(replace(table.rows[0], label=ODD), *table.rows[1:]))
        compiled(latex(Wording(odd)), tmp_path)

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
    @pytest.mark.parametrize("encoding", ["OT1", "T1"])
    def test_strange_signs_compile(self, encoding: str, tmp_path: Path) -> None:
        made = table_4(tasks=TASKS[:1])
        labels = [*STRANGE, *(row.label for row in made.rows[len(STRANGE) :])]
        rows = [replace(row, label=label) for row, label in zip(made.rows, labels, strict=True)]
        odd = replace(made, title=STRANGE[0], rows=tuple(rows))
        assert "Missing character" not in compiled(latex(Wording(odd)), tmp_path, encoding)


def test_csv_has_every_figure_in_full(wording: Wording) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(wording))))
    assert len(lines) == 64
    [cell] = [line for line in lines if (line["row"], line["column"]) == ("aaa_1", "stsb")]
    found = spread(wording.table.cell("aaa_1", "stsb").values("score"))
    assert found is not None
    assert float(cell["score_mean"]) == found.mean
    assert float(cell["score_sd"]) == found.deviation
    comparison = wording.comparisons["aaa_1", "stsb"]
    assert float(cell["welch_p"]) == comparison.p_value
    assert float(cell["difference"]) == comparison.difference
    assert (cell["score_paper"], cell["difference_paper"], cell["n"]) == ("79.0", "37.0", "3")
    assert len(cell["run_ids"].split()) == 3
    [failed] = [line for line in lines if (line["row"], line["column"]) == ("full", "rte")]
    assert (failed["score_mean"], failed["n"], failed["failed"]) == ("", "0", "1")


class Reader(HTMLParser):
    """Every tag is closed in order; what is linked to; all text."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert all(value for name, value in attrs if name == "alt")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html(wording: Wording, figures: dict[str, Figure]) -> str:
    return page(wording, {name: as_svg(figure) for name, figure in figures.items()})


class TestPage:
    def test_it_needs_nothing_besides_itself(self, html: str) -> None:
        read = Reader(html)
        assert {link[:19] for link in read.links} == {"data:image/svg+xml;"}
        assert len(read.links) == 3
        assert "script" not in read.tags
        assert "@import" not in html
        assert "url(" not in html

    def test_what_a_failure_said_is_text(self, html: str) -> None:
        assert "<script>" not in html
        assert "&lt;script&gt;alert(1)" in html

    def test_figures_states_and_tests_are_in_it(self, html: str, wording: Wording) -> None:
        text = " ".join(Reader(html).text.split())
        mean, _, deviation = wording.cell("aaa_1", "stsb").main.value.partition(" ± ")
        assert f"{mean} ± {deviation} {wording.cell('aaa_1', 'stsb').main.arrow} 79 ↑ 37" in text
        for part in ("failed", "running", "needs pre-training", "n=2, 1 interrupted", "Wilcoxon"):
            assert part in text

    def test_its_pictures_are_svg_with_a_panel_a_task(self, html: str) -> None:
        for link in Reader(html).links:
            svg = base64.b64decode(link.partition(",")[2]).decode()
            assert svg.startswith("<?xml")
            assert svg.count('<g id="axes_') in (1, len(TASKS))

    def test_without_a_finished_run_it_says_so(self, table: Measured) -> None:
        empty = replace(table, cells={})
        html = page(Wording(empty), {})
        assert "No run is finished yet" in Reader(html).text


def test_pictures_that_a_table_no_longer_has_are_removed(tmp_path: Path) -> None:
    made = table_4(seeds=1, tasks=("stsb",))
    first = write_files(Wording(made), tmp_path)
    others = [tmp_path / name for name in ("table_4-mine.png", "table_4b-differences.png")]
    for path in others:
        path.touch()
    cells = {
        place: Cell(tuple(replace(run, curves={}) for run in cell.runs))
        for place, cell in made.cells.items()
    }
    again = write_files(Wording(replace(made, cells=cells)), tmp_path)
    gone = {path.name for path in set(first) - set(again)}
    assert gone == {
        f"table_4-{name}.{suffix}"
        for name in ("learning-curves", "differences")
        for suffix in ("png", "svg")
    }
    assert set(tmp_path.iterdir()) == {*again, *others}


def test_a_runs_figure_that_rounds_to_nothing_has_no_sign() -> None:
    table = lines_series()
    run = Run(0, "finished", "none", {"score": -0.001})
    html = page(Wording(replace(table, cells={("none", "rte"): Cell((run,))})), {})
    assert "score 0.00" in html
    assert "-0.00" not in html


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    wording = Wording(table_4(tasks=("stsb",)))
    first = write_files(wording, tmp_path / "a")
    again = write_files(wording, tmp_path / "b")
    assert first[0].name == "table_4.html"
    assert {path.suffix for path in first} == {
        ".html", ".md", ".tex", ".csv", ".json", ".png", ".svg",
    }  # fmt: skip
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
