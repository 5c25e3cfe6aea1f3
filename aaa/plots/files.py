"""Pictures as files. No torch."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

PICTURES = (".png", ".svg")


def save(figure: Figure, output: Path) -> list[Path]:
    """Writes a picture as PNG and as SVG, the same bytes each time; returns both paths."""
    stem = output.with_suffix("") if output.suffix in PICTURES else output
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + suffix) for suffix in PICTURES]
    figure.savefig(paths[0], dpi=150)
    paths[1].write_text(as_svg(figure))
    return paths


def as_svg(figure: Figure) -> str:
    """A picture as SVG, the same text each time."""
    file = io.StringIO()
    with rc_context({"svg.hashsalt": "aaa"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
