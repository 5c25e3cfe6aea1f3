"""What people type becomes Hydra's."""

from __future__ import annotations

import pytest

from aaa.experiments.sweep.options import for_sweeper, quoted


def test_options_become_the_sweepers() -> None:
    typed = ["-m", "+table=4", "rows=full,aaa", "seeds=[0,1]", "retry_failed=true", "scale=small"]
    assert for_sweeper(typed) == [
        "-m",
        "hydra.sweeper.table='4'",
        "hydra.sweeper.rows=[full,aaa]",
        "hydra.sweeper.seeds=[0,1]",
        "hydra.sweeper.retry_failed=true",
        "scale=small",
    ]


def test_they_are_for_many_runs() -> None:
    assert for_sweeper(["seed=3", "pattern=full"]) == ["seed=3", "pattern=full"]
    with pytest.raises(ValueError, match=r"\+table=4 is for many runs: aaa finetune -m \+table=4"):
        for_sweeper(["+table=4"])


def test_any_path_can_be_a_table() -> None:
    assert quoted("it's \\ a, b.yaml") == "'it\\'s \\\\ a, b.yaml'"
