"""A run whose first process takes its time to end."""

from __future__ import annotations

import time
from pathlib import Path

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from aaa.training.loggers import Conclusion, CsvLogger

SECONDS = 6


class SlowLogger(CsvLogger):
    def conclude(self, conclusion: Conclusion) -> None:
        time.sleep(SECONDS)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status == "failed":
            time.sleep(SECONDS)
        super().finalize(status)


def slow_logger(run_id: str, directory: Path) -> list[Logger]:
    return [SlowLogger(directory)]
