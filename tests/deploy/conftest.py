"""The small run that pictures are drawn of serves here too."""

from __future__ import annotations

from tests.plots.conftest import finished_run

__all__ = ["finished_run"]
