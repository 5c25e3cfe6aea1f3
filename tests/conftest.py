"""Nothing is downloaded, one thread, fixed seeds; tiny random encoders of each family."""

from __future__ import annotations

import os
import shutil

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1")
os.environ.update(WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
if shutil.which("nvidia-smi") is None:  # has to be there before anything imports Triton
    os.environ.update(TRITON_INTERPRET="1")

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import settings

from tests.encoders import REFUSED, SERVED, VOCABULARY, build

torch.set_num_threads(1)
settings.register_profile("aaa", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("aaa")

EncoderFactory = Callable[..., Any]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_encoder() -> EncoderFactory:
    """Makes a tiny random classifier in eval mode, the same whenever the arguments are."""

    def make(family: str = "Bert", head: str = "ForSequenceClassification", **changes: Any) -> Any:
        shape = SERVED[family] if family in SERVED else REFUSED[family][0]
        return build(family, {**shape, **changes}, head)

    return make


@pytest.fixture(params=SERVED)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Four texts of 12, 9, 5 and 1 tokens, padded on the right with RoBERTa's and BERT's id."""
    lengths = torch.tensor([12, 9, 5, 1])
    keep_BN = torch.arange(12) < lengths.unsqueeze(-1)
    ids_BN = torch.randint(
        5, VOCABULARY, keep_BN.shape, generator=torch.Generator().manual_seed(2)
    )
    return {"input_ids": ids_BN.masked_fill(~keep_BN, 1), "attention_mask": keep_BN.long()}
