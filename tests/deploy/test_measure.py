"""Peak memory against what is allocated by hand."""

from __future__ import annotations

import time

import torch

from aaa.deploy.measure import peak_bytes, seconds

CPU = torch.device("cpu")
KILO = 4 * 1000  # bytes of so many float32


def test_peak_is_the_most_at_one_time() -> None:
    def one_after_the_other() -> torch.Tensor:
        first = torch.zeros(300_000)
        second = first + 1  # both are there
        del first
        third = torch.zeros(100_000)
        return second[0] + third[0]

    assert abs(peak_bytes(one_after_the_other, CPU) - 600 * KILO) < KILO


def test_what_was_there_before_does_not_count() -> None:
    large = torch.zeros(1_000_000)
    assert peak_bytes(lambda: large[:10].clone(), CPU) < KILO


def test_temporaries_inside_an_operator_count() -> None:
    left, right = torch.zeros(2, 1, 300, 300)
    scores = peak_bytes(lambda: torch.nn.functional.softmax(left + right, -1), CPU)
    assert abs(scores - 2 * 90 * KILO) < KILO


def test_seconds() -> None:
    assert 0.02 <= seconds(lambda: time.sleep(0.02), CPU) < 1
