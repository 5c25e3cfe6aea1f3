"""Encoders whose layers attend locally by themselves count as such before they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aaa import Full, Global, Local, sparsify, sparsity
from aaa.models.pretrained import PretrainedEncoder
from aaa.objective import sparsity_of_lengths
from aaa.patterns import Pattern
from aaa.probe import find_self_attentions
from tests.conftest import EncoderFactory
from tests.reference import keep_of


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Albert", "DistilBert", "ModernBert"])
def test_windows_are_those_that_the_probe_finds(
    family: str, make_encoder: EncoderFactory, tmp_path: Path
) -> None:
    model = make_encoder(family)
    model.save_pretrained(tmp_path)
    found = enumerate(find_self_attentions(model))
    expected = {layer: one.window for layer, one in found if one.window is not None}
    assert PretrainedEncoder(path=str(tmp_path)).windows == expected
    assert bool(expected) == (family == "ModernBert")


@pytest.mark.parametrize("pattern", [Full(), Local(1) | Global(1), Local(9)], ids=str)
def test_sparsity_before_any_model(
    pattern: Pattern, make_encoder: EncoderFactory, tmp_path: Path
) -> None:
    model = make_encoder("ModernBert").eval()
    model.save_pretrained(tmp_path)
    encoder = PretrainedEncoder(path=str(tmp_path))
    lengths = [20, 13, 7]
    said = sparsity_of_lengths(pattern, lengths, encoder.num_layers, encoder.windows)
    sparsify(model, pattern)
    with torch.inference_mode():
        model(input_ids=torch.full((3, 20), 7), attention_mask=keep_of(lengths).long())
        assert said == pytest.approx(float(sparsity(model)), abs=1e-6)
    assert said > sparsity_of_lengths(pattern, lengths, encoder.num_layers) + 0.01
