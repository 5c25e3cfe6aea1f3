"""A run whose first process takes its time to end."""

from __future__ import annotations

import time
from pathlib import Path

from pytorch_lightning.loggers import Logger

from aaa.training.loggers import Conclusion, CsvLogger


class SlowLogger(CsvLogger):
    def conclude(self, conclusion: Conclusion) -> None:
        time.sleep(6)


def slow_logger(run_id: str, directory: Path) -> list[Logger]:
    return [SlowLogger(directory)]
