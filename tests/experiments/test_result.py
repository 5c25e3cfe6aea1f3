"""result.json is whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from aaa.experiments.result import RESULT, is_finished, read_result, write_result


def test_round_trip_leaves_nothing_else(tmp_path: Path) -> None:
    write_result(tmp_path, {"status": "finished", "score": 1.5})
    assert read_result(tmp_path) == {"status": "finished", "score": 1.5}
    assert [path.name for path in tmp_path.iterdir()] == [RESULT]


def test_no_result_yet(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    assert not is_finished(None)


def test_failed_is_not_finished(tmp_path: Path) -> None:
    write_result(tmp_path, {"status": "failed", "error": "x"})
    assert not is_finished(read_result(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_what_is_no_result_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULT).write_text(text)
    with pytest.raises(ValueError, match=RESULT):
        read_result(tmp_path)


def test_figures_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, {"status": "finished", "score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_result(tmp_path, {"status": "finished"})
    assert not list(tmp_path.iterdir())
