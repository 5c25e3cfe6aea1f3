"""Nothing is downloaded, one thread, fixed seeds; tiny random encoders of each family."""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1")
os.environ.update(WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("aaa", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("aaa")

VOCABULARY = 60
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "num_labels": 3,
}
DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 64,
    "num_labels": 3,
}
# A trigram embedding mixes padding into the last real token before any attention.
MOBILEBERT = {"embedding_size": 8, "intra_bottleneck_size": 8, "trigram_input": False}
MODERNBERT = {f"{name}_token_id": 1 for name in ("bos", "eos", "cls", "sep", "pad")}

# Model family -> its class with a classification head, without "ForSequenceClassification".
SERVED: dict[str, dict[str, Any]] = {
    "Bert": SHAPE,
    "Roberta": SHAPE,
    "DistilBert": DISTILBERT,
    "Electra": {**SHAPE, "embedding_size": 16},
    "Albert": {**SHAPE, "embedding_size": 8},
    "MobileBert": {**SHAPE, **MOBILEBERT},
}
REFUSED: dict[str, dict[str, Any]] = {
    "DebertaV2": SHAPE,
    "MPNet": SHAPE,
    "ConvBert": {**SHAPE, "embedding_size": 16},
    "ModernBert": {**SHAPE, **MODERNBERT},
    "GPT2": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "num_labels": 3},
}

EncoderFactory = Callable[..., Any]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_encoder() -> EncoderFactory:
    """Makes a tiny random classifier in eval mode, the same whenever the arguments are."""

    def make(family: str = "Bert", head: str = "ForSequenceClassification", **changes: Any) -> Any:
        shape = {**SERVED, **REFUSED}[family]
        config = getattr(transformers, f"{family}Config")(**{**shape, **changes})
        if family == "GPT2":
            config.pad_token_id = config.bos_token_id = config.eos_token_id = 0
        torch.manual_seed(1)
        model = getattr(transformers, f"{family}{head}")(config)
        with torch.no_grad():  # the usual start, 0.02, leaves attention nearly uniform
            for name, parameter in model.named_parameters():
                if parameter.dim() == 2 and "mbedding" not in name:
                    parameter.normal_(std=0.3)
        return model.eval()

    return make


@pytest.fixture(params=SERVED)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=REFUSED)
def refused_family(request: pytest.FixtureRequest) -> str:
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
