"""Tiny random encoders of every family that was tried, and what is to become of each."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

from aaa import gate_parameters

Batch = dict[str, Tensor]

VOCABULARY = 60
SHAPE: dict[str, Any] = {
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
TOKENS = {f"{name}_token_id": 1 for name in ("bos", "eos", "cls", "sep", "pad")}
# The first layer sees all, the second two tokens on each side.
MODERNBERT = {**TOKENS, "local_attention": 4, "classifier_pooling": "mean"}
IMAGE = {
    **{name: SHAPE[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")},
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
    "num_labels": 3,
}
DINOV2 = {name: value for name, value in IMAGE.items() if name != "intermediate_size"}
SHARED_KEYS = {"num_key_value_heads": 1}
T5 = {"d_model": 16, "d_kv": 8, "num_layers": 2, "num_heads": 2, "d_ff": 32, "vocab_size": 60}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "num_labels": 3}
XLM = {"vocab_size": 60, "n_words": 60, "emb_dim": 16, "n_layers": 2, "n_heads": 2}
XLNET = {"vocab_size": 60, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}
FUNNEL = {"vocab_size": 60, "d_model": 16, "n_head": 2, "d_head": 8, "block_sizes": [1, 1]}
SWIN = {
    **{"image_size": 16, "patch_size": 2, "embed_dim": 8, "window_size": 2},
    **{"depths": [1, 1], "num_heads": [2, 2]},
}
PERCEIVER = {
    **{"d_latents": 16, "d_model": 16, "num_latents": 4, "num_blocks": 1},
    **{"num_self_attends_per_block": 1, "num_self_attention_heads": 2},
    "num_cross_attention_heads": 2,
}
SOUND = {
    **{name: value for name, value in SHAPE.items() if name != "max_position_embeddings"},
    **{"conv_dim": [8, 8], "conv_stride": [5, 2], "conv_kernel": [10, 3]},
    **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2},
}

# The main families: name of the class with a head, without "ForSequenceClassification".
SERVED: dict[str, dict[str, Any]] = {
    "Bert": SHAPE,
    "Roberta": SHAPE,
    "XLMRoberta": SHAPE,
    "Camembert": SHAPE,
    "RobertaPreLayerNorm": SHAPE,
    "DistilBert": DISTILBERT,
    "Electra": {**SHAPE, "embedding_size": 16},
    "Albert": {**SHAPE, "embedding_size": 8},
    "MobileBert": {**SHAPE, **MOBILEBERT},
    "ModernBert": {**SHAPE, **MODERNBERT},
}
# Whose position ids count the tokens that are not <pad>.
COUNT_PADDING = {"Roberta", "XLMRoberta", "Camembert", "RobertaPreLayerNorm"}
# Whose self-attentions read something else than the hidden states between layers.
NORMALISED_OR_BOTTLENECK = {"RobertaPreLayerNorm", "MobileBert"}

# Further ones: name of the class, without "Model".
SERVED_TOO: dict[str, dict[str, Any]] = {
    "Data2VecText": SHAPE,
    "Ernie": SHAPE,
    "Esm": {**SHAPE, "pad_token_id": 1, "mask_token_id": 2},
    "EuroBert": {**SHAPE, **TOKENS, **SHARED_KEYS},
    "Gte": SHAPE,
    "JinaEmbeddingsV3": SHAPE,
    "LayoutLM": SHAPE,
    "MarkupLM": SHAPE,
    "NomicBert": SHAPE,
    "RoCBert": SHAPE,
    "SiglipText": SHAPE,
    "Splinter": SHAPE,
    "Ultrabert": {**SHAPE, **TOKENS, "sliding_window": 3},
    "XLMRobertaXL": {**SHAPE, "pad_token_id": 1},
    "Xmod": {**SHAPE, "default_language": "en_XX", "languages": ["en_XX"]},
}
SERVED_IMAGES: dict[str, dict[str, Any]] = {
    "Beit": IMAGE,
    "CLIPVision": IMAGE,
    "DINOv3ViT": IMAGE,
    "DeiT": IMAGE,
    "Dinov2": DINOV2,
    "Dinov2WithRegisters": DINOV2,
    "IJepa": IMAGE,
    "SiglipVision": IMAGE,
    "ViT": IMAGE,
    "ViTMSN": IMAGE,
}

INTERFACE = "does not attend through transformers' attention interface"
UNREADABLE = "could not be run on a tiny input"
# Name of the class without "Model" -> its shape, and what the refusal says.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "BigBird": (SHAPE, INTERFACE),
    "Canine": (SHAPE, INTERFACE),
    "ConvBert": ({**SHAPE, "embedding_size": 16}, INTERFACE),
    "Deberta": (SHAPE, INTERFACE),
    "DebertaV2": (SHAPE, INTERFACE),
    "FNet": (SHAPE, INTERFACE),
    "Flaubert": (XLM, INTERFACE),
    "Funnel": (FUNNEL, INTERFACE),
    "IBert": (SHAPE, INTERFACE),
    "LayoutLMv3": ({**SHAPE, "coordinate_size": 2, "shape_size": 4}, INTERFACE),
    "Lilt": ({**SHAPE, "hidden_size": 48}, INTERFACE),
    "Longformer": ({**SHAPE, "attention_window": 4}, INTERFACE),
    "Luke": ({**SHAPE, "entity_vocab_size": 10, "entity_emb_size": 16}, INTERFACE),
    "MPNet": (SHAPE, INTERFACE),
    "MegatronBert": (SHAPE, INTERFACE),
    "Mra": (SHAPE, INTERFACE),
    "Nystromformer": (SHAPE, INTERFACE),
    "Reformer": ({"vocab_size": VOCABULARY}, INTERFACE),
    "RemBert": ({**SHAPE, "input_embedding_size": 16}, INTERFACE),
    "RoFormer": (SHAPE, INTERFACE),
    "SqueezeBert": ({**SHAPE, "embedding_size": 16}, INTERFACE),
    "Tapas": (SHAPE, INTERFACE),
    "XLM": (XLM, INTERFACE),
    "XLNet": (XLNET, INTERFACE),
    "Yoso": (SHAPE, INTERFACE),
    "Data2VecVision": (IMAGE, INTERFACE),
    "T5Encoder": (T5, "adds a bias of its own"),
    "Swin": (SWIN, "attends from some tokens to others"),
    "ViTMAE": (IMAGE, "more than attend by scaled dot products"),
    "GPT2": (GPT2, "attention is causal"),
    "Llama": ({**SHAPE, **SHARED_KEYS}, "attention is causal"),
    "CLIPText": (SHAPE, "attention is causal"),
    "UMT5Encoder": (T5, "encoder-decoder"),
    "Bros": (SHAPE, UNREADABLE),
    "CLIP": ({"text_config": SHAPE, "vision_config": IMAGE}, UNREADABLE),
    "Perceiver": (PERCEIVER, "reads inputs"),
    "Wav2Vec2": (SOUND, "reads input_values"),
    "Hubert": (SOUND, "reads input_values"),
    "AST": ({**IMAGE, "max_length": 32, "num_mel_bins": 32}, "reads input_values"),
}


def build(family: str, shape: dict[str, Any], head: str = "Model") -> Any:
    """A tiny random model in eval mode, the same whenever the arguments are."""
    config = getattr(transformers, f"{family.removesuffix('Encoder')}Config")(**shape)
    torch.manual_seed(1)
    model = getattr(transformers, f"{family}{head}")(config)
    with torch.no_grad():  # the usual start, 0.02, leaves attention nearly uniform
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "mbedding" not in name:
                parameter.normal_(std=0.3)
    return model.eval()


# What the tests of encoders share.


def randomise_gates(model: nn.Module) -> None:
    """Importance layers under which about half of the tokens are important."""
    for parameter in gate_parameters(model):
        # A bias alone counts 32 times: see SINGLE_LOGIT_GAIN.
        parameter.data.normal_(std=1.0 if parameter.dim() > 1 else 1 / 32)


@torch.no_grad()
def hidden_states(model: Any, batch: Batch) -> Tensor:
    return model.base_model(**batch).last_hidden_state


def real(batch: Batch, tensor_BND: Tensor) -> Tensor:
    return tensor_BND[batch["attention_mask"].bool()]
