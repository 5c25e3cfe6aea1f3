"""A measured table in every form that is a file, in one folder."""

from __future__ import annotations

from pathlib import Path

from aaa.report.latex import latex
from aaa.report.markdown import markdown
from aaa.report.measured import save
from aaa.report.tidy import as_csv
from aaa.report.wording import Wording


def write_files(wording: Wording, folder: Path) -> list[Path]:
    """Writes page, pictures, Markdown, LaTeX, CSV, JSON; returns their paths, the page first."""
    from aaa.plots.files import save as save_picture  # matplotlib takes half a second
    from aaa.report.charts import charts
    from aaa.report.page import page

    table = wording.table
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        name: save_picture(figure, folder / f"{table.name}-{name}")
        for name, figure in charts(table).items()
    }
    texts = {
        "html": page(wording, {name: svg.read_text() for name, (_, svg) in pictures.items()}),
        "md": markdown(wording),
        "tex": latex(wording),
        "csv": as_csv(wording),
    }
    paths = [folder / f"{table.name}.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    data = save(table, folder / f"{table.name}.json")
    return [*paths, data, *(path for both in pictures.values() for path in both)]
