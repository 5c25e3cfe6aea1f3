"""The encoder of Long Range Arena's Text task as a Hugging Face model (Tay et al., 2021).

None of transformers' own classes is it: they put a LayerNorm behind the embeddings, learn the
positions, or have another head. Numbers and choices are those of the benchmark's code
(github.com/google-research/long-range-arena, ``models/transformer`` and ``models/layers``).
Importing this module makes transformers' ``Auto`` classes know it.

Shape suffixes: B batch, N tokens, D features, H heads.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NUM_BYTES = 256
PAD, CLS = 0, NUM_BYTES + 1  # byte b is token b + 1
LAYER_NORM_EPS = 1e-6  # flax's
CUT_STD = 0.8796  # standard deviation of a normal distribution cut off at 2


class LraTextConfig(PreTrainedConfig):
    """Sizes of the encoder; the defaults are those of the benchmark's code for the Text task.

    (Its paper says 6 layers, 8 heads, 512 and 2048.)
    """

    model_type = "lra_text"

    def __init__(
        self,
        hidden_size: int = 256,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 4,
        intermediate_size: int = 1024,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        max_position_embeddings: int = 1001,
        vocab_size: int = CLS + 1,
        pad_token_id: int = PAD,
        cls_token_id: int = CLS,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.max_position_embeddings = max_position_embeddings
        self.vocab_size = vocab_size
        super().__init__(pad_token_id=pad_token_id, cls_token_id=cls_token_id, **kwargs)


class LraTextSelfAttention(nn.Module):
    """Multi-head self-attention without biases, through transformers' attention interface."""

    is_causal = False

    def __init__(self, config: LraTextConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )

    def forward(self, hidden_BND: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Tensor:
        query, key, value = (
            part(hidden_BND).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, sdpa_attention_forward
        )
        attended_BNHD, _ = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=query.shape[-1] ** -0.5,
            **kwargs,
        )
        return self.output(attended_BNHD.flatten(2))


class LraTextLayer(GradientCheckpointingLayer):
    """Attention and feed-forward network, each behind a LayerNorm and beside a residual."""

    def __init__(self, config: LraTextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = LraTextSelfAttention(config)
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.expand = nn.Linear(width, config.intermediate_size)
        self.contract = nn.Linear(config.intermediate_size, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_BND: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Tensor:
        attended_BND = self.attention(self.attention_norm(hidden_BND), attention_mask, **kwargs)
        hidden_BND = hidden_BND + self.dropout(attended_BND)
        expanded = F.gelu(self.expand(self.mlp_norm(hidden_BND)), approximate="tanh")  # flax's
        return hidden_BND + self.dropout(self.contract(self.dropout(expanded)))


class LraTextPreTrainedModel(PreTrainedModel):
    """How weights start: flax's defaults and the benchmark's choices."""

    config_class = LraTextConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["LraTextLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            start_VD = torch.randn_like(module.weight)
            start_VD[CLS] = 0
            init.copy_(module.weight, start_VD)
        elif isinstance(module, HeadLinear):
            std = module.in_features**-0.5 / CUT_STD
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.normal_(module.bias, std=1e-6)


class LraTextModel(LraTextPreTrainedModel):
    """Bytes to hidden states. Texts begin with the classification token; padding is behind."""

    def __init__(self, config: LraTextConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(LraTextLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutput:
        """Hidden states of shape (B, N, D); ``attention_mask`` (B, N) is 1 for real tokens."""
        hidden_BND = self.embeddings(input_ids)
        hidden_BND = self.dropout(hidden_BND + sinusoids(hidden_BND))
        mask = create_bidirectional_mask(self.config, hidden_BND, attention_mask)
        for layer in self.layers:
            hidden_BND = layer(hidden_BND, mask, **kwargs)
        return BaseModelOutput(last_hidden_state=self.norm(hidden_BND))


class HeadLinear(nn.Linear):
    """A layer that starts as flax's do by default: LeCun's normal distribution, cut off at 2."""


class LraTextHead(nn.Module):
    """The benchmark's: the classification token through a layer as wide as the feed-forward's."""

    def __init__(self, config: LraTextConfig) -> None:
        super().__init__()
        self.dense = HeadLinear(config.hidden_size, config.intermediate_size)
        self.out = HeadLinear(config.intermediate_size, config.num_labels)

    def forward(self, hidden_BND: Tensor) -> Tensor:
        return self.out(F.relu(self.dense(hidden_BND[:, 0])))


class LraTextForSequenceClassification(LraTextPreTrainedModel):
    """The encoder under its classification head."""

    def __init__(self, config: LraTextConfig) -> None:
        super().__init__(config)
        self.encoder = LraTextModel(config)
        self.classifier = LraTextHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits of shape (B, labels) and, with ``labels``, the cross entropy."""
        hidden_BND = self.encoder(input_ids, attention_mask, **kwargs).last_hidden_state
        logits = self.classifier(hidden_BND)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def sinusoids(hidden_BND: Tensor) -> Tensor:
    """Fixed positions, (N, D): sines and cosines in turn (Vaswani et al., 2017, 3.5).

    Made anew in every pass, so that there is no table to be saved and none that ends.
    """
    num_tokens, width = hidden_BND.shape[1:]
    positions_N1 = torch.arange(num_tokens, device=hidden_BND.device).unsqueeze(-1)
    exponents = torch.arange(0, width, 2, device=hidden_BND.device) / width
    angles = positions_N1 * torch.exp(exponents * -math.log(10000.0))
    table_ND = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return table_ND.to(hidden_BND.dtype)


AutoConfig.register(LraTextConfig.model_type, LraTextConfig)
AutoModel.register(LraTextConfig, LraTextModel)
AutoModelForSequenceClassification.register(LraTextConfig, LraTextForSequenceClassification)
