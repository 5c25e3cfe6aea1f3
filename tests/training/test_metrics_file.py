"""metrics.csv as a reader sees it, also while it is being written."""

from __future__ import annotations

from pathlib import Path

import pytest

from aaa.training.loggers import CsvLogger
from aaa.training.metrics_file import read_metrics


def test_what_was_logged_is_read(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0.0}, step=0)
    logger.log_metrics({"train/loss": 0.25, "validation/rho": 1e-7}, step=10)
    logger.save()
    assert read_metrics(tmp_path) == {
        "train/loss": {0: 0.5, 10: 0.25}, "validation/rho": {10: 1e-7},
    }  # fmt: skip
    assert read_metrics(tmp_path, ["validation/rho"]) == {"validation/rho": {10: 1e-7}}
    assert read_metrics(tmp_path, ["validation.rho"]) == {}  # names, not expressions


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,name,value\n1,a,2.5\n2,a,2.")
    assert read_metrics(tmp_path) == {"a": {1: 2.5}}


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "step,name,value\n1,a,much\n"])
def test_what_is_no_such_file_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match="is no run's curve"):
        read_metrics(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no metrics\.csv"):
        read_metrics(tmp_path)


def test_a_full_disk_keeps_figures_for_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = CsvLogger(tmp_path / "gone")  # cannot be written to
    for step in (0, 1):
        logger.log_metrics({"train/loss": 0.5}, step=step)
        logger.save()
    assert caplog.text.count("cannot be written, figures are kept") == 1
    (tmp_path / "gone").mkdir()
    logger.save()
    assert read_metrics(tmp_path / "gone") == {"train/loss": {0: 0.5, 1: 0.5}}
