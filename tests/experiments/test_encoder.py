"""What no run can be made of is refused before there is anything of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aaa.experiments.encoder import rehearse
from aaa.experiments.plan import make_plan
from aaa.experiments.run import run
from aaa.models.tiny import TinyEncoder
from tests.conftest import EncoderFactory
from tests.experiments.conftest import Compose


@pytest.mark.parametrize(
    ("family", "overrides", "message"),
    [
        ("DebertaV2", ["pattern=local2"], "DebertaV2ForSequenceClassification cannot be served"),
        ("Albert", ["pattern=local2", "pattern.layers=1"], "share one self-attention"),
        (
            "Albert",
            ["training.gradient_checkpointing=true"],
            "AlbertForSequenceClassification has no",
        ),
    ],
)
def test_an_encoder_that_cannot_be_served(
    family: str,
    overrides: list[str],
    message: str,
    make_encoder: EncoderFactory,
    compose: Compose,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "encoder"
    tokenizer = TinyEncoder().tokenizer()
    make_encoder(family, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = compose("model=minilm", f"model.path={folder}", "task=demo_similarity", *overrides)
    with pytest.raises(ValueError, match=message):
        run(config)
    assert not (tmp_path / "outputs").exists()


def test_a_rehearsal_leaves_no_trace(compose: Compose, caplog: pytest.LogCaptureFixture) -> None:
    plan = make_plan(compose("pattern=aaa"))
    before = torch.random.get_rng_state()
    with caplog.at_level("INFO"):
        rehearse(plan, lambda: plan.encoder.classifier(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not caplog.records
