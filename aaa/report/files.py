"""A measured table in every form that is a file, in one folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from aaa.report.latex import latex
from aaa.report.markdown import markdown
from aaa.report.measured import save
from aaa.report.tidy import as_csv
from aaa.report.wording import Wording


def make_folder(folder: Path) -> None:
    """Makes a folder that files are to be written to, where it is not there yet.

    Raises:
        ValueError: if there can be none, or nothing be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror
    else:
        if os.access(folder, os.W_OK | os.X_OK):
            return
        why = os.strerror(errno.EACCES)
    raise ValueError(f"{folder} is no folder that can be written to ({why}); give another one")


def write_files(wording: Wording, folder: Path) -> list[Path]:
    """Writes page, pictures, Markdown, LaTeX, CSV, JSON; returns their paths, the page first.

    Pictures of an older writing that this table has no longer are removed.

    Raises:
        ValueError: if the folder cannot be made.
    """
    from aaa.plots.files import PICTURES  # matplotlib takes half a second
    from aaa.plots.files import save as save_picture
    from aaa.report.charts import charts
    from aaa.report.page import CAPTIONS, page

    table = wording.table
    make_folder(folder)
    pictures = {
        name: save_picture(figure, folder / f"{table.name}-{name}")
        for name, figure in charts(table).items()
    }
    for name in CAPTIONS.keys() - pictures.keys():
        for suffix in PICTURES:
            (folder / f"{table.name}-{name}{suffix}").unlink(missing_ok=True)
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
