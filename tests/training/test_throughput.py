"""Model FLOPs against PyTorch's own counter, and the peak of the hardware."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AlbertConfig, AlbertForMaskedLM, BertConfig, BertForMaskedLM

from aaa.training import throughput
from aaa.training.pretrain import HiddenWords
from aaa.training.throughput import flops_per_token, peak_flops

LENGTH, PLACES, BLOCKS = 32, 5, 4


def test_flops_are_those_that_are_counted() -> None:
    """By PyTorch's counter, over forward and backward."""
    config = BertConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=LENGTH, attn_implementation="eager",
    )  # fmt: skip
    model = BertForMaskedLM(config)
    words = HiddenWords(model)
    batch = {
        "input_ids": torch.randint(5, 100, (BLOCKS, LENGTH)),
        "attention_mask": torch.ones(BLOCKS, LENGTH, dtype=torch.long),
        "places": torch.arange(PLACES).expand(BLOCKS, -1),
    }
    with FlopCounterMode(display=False) as counter:
        scores = words(batch)
        scores.sum().backward()
    assert scores.shape == (BLOCKS, PLACES, 100)
    expected = flops_per_token(model, LENGTH, PLACES) * BLOCKS * LENGTH
    # The head's transform sees every token; everything else is exact.
    transform = 3 * 2 * 16 * 16 * (LENGTH - PLACES) * BLOCKS
    assert counter.get_total_flops() == expected + transform


@pytest.mark.parametrize("groups", [1, 2])
def test_layers_that_share_weights_count_as_often_as_they_run(groups: int) -> None:
    config = AlbertConfig(
        vocab_size=100, embedding_size=8, hidden_size=16, num_hidden_layers=6,
        num_hidden_groups=groups, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LENGTH, attn_implementation="eager",
    )  # fmt: skip
    model = AlbertForMaskedLM(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.randint(5, 100, (BLOCKS, LENGTH)))
    pooler = 2 * 16 * 16 * LENGTH * BLOCKS  # is not run
    counted = 3 * (counter.get_total_flops() + pooler)
    expected = flops_per_token(model, LENGTH, LENGTH) * BLOCKS * LENGTH
    assert counted == pytest.approx(expected, rel=0.02)


def test_a_cpus_peak_is_measured() -> None:
    assert 1e9 < peak_flops(torch.device("cpu"), "32-true") < 1e14  # type: ignore[operator]


def test_an_accelerators_is_that_of_its_data_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def known(device: torch.device, kind: torch.dtype) -> int:
        asked.append(kind)
        return 10**15

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(throughput, "get_available_flops", known)
    assert peak_flops(torch.device("cuda"), "bf16-mixed") == 1e15
    assert asked == [torch.bfloat16]
    monkeypatch.setattr(throughput, "get_available_flops", lambda *_: None)
    assert peak_flops(torch.device("cuda"), "32-true") is None


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H200", 989e12), ("NVIDIA L40S", 362e12)])
def test_devices_that_lightning_does_not_know(
    name: str, peak: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak_flops(torch.device("cuda"), "bf16-mixed") == peak
