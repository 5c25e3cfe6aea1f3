"""How fast pre-training is: tokens per second, and the share of the hardware's peak."""

from __future__ import annotations

import logging
import time

import torch
from lightning_fabric.utilities.throughput import get_available_flops
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from transformers import PreTrainedModel

from aaa.training.callbacks import Speed

log = logging.getLogger(__name__)

# FLOPs a second by NVIDIA's data sheets, without sparsity; Lightning lacks the first, and takes
# the second for an L4.
PEAKS = {
    "H200": {torch.bfloat16: 989e12, torch.float32: 67e12},
    "L40S": {torch.bfloat16: 362e12, torch.float32: 91.6e12},
}
PROBE = 1024  # size of the matrices by which a CPU's peak is measured


def flops_per_token(model: PreTrainedModel, length: int, num_places: int) -> float:
    """Model FLOPs of a training step for each token of a block: forward and twice that backward.

    As is usual (PaLM, appendix B), attention counts in full whatever the pattern, so that what a
    pattern saves shows as utilisation. Two FLOPs for each weight of a matrix that a token passes,
    embeddings apart; the head only for the tokens that are predicted.

    Args:
        model: an encoder under a masked language model's head.
        length: of a block.
        num_places: predicted tokens of a block.
    """
    config = model.config
    groups = getattr(config, "num_hidden_groups", None)  # ALBERT's, of layers that share weights
    repeated = config.num_hidden_layers / groups if groups else 1
    body = _matrix_weights(model.base_model, repeated)
    head = _matrix_weights(model, repeated) - body
    attention = 4 * length * config.hidden_size * config.num_hidden_layers
    return 3 * (2 * body + 2 * head * num_places / length + attention)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """What the device can do a second, by its data sheet; of a CPU, measured on matrices.

    None for an accelerator that is not known.
    """
    kind = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    if device.type != "cpu":
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        for part, flops in PEAKS.items():
            if part in name:
                return flops[kind]
        known = get_available_flops(device, kind)
        return None if known is None else float(known)
    matrix = torch.randn(PROBE, PROBE).to(kind)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - begun)
    return 2 * PROBE**3 / min(times)


class Throughput(Speed):
    """Logs ``train/tokens_per_second`` and ``train/mfu``, each over the steps since the last time.

    Args:
        length: tokens of a block.
        flops: of a token, ``flops_per_token``.
        precision: of the training.
    """

    def __init__(self, length: int, flops: float, precision: str) -> None:
        super().__init__()
        self.length, self.flops, self.precision = length, flops, precision
        self.peak: float | None = None  # of all devices

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the devices' peak."""
        peak = peak_flops(trainer.strategy.root_device, self.precision)
        if peak is None and trainer.is_global_zero:
            log.info("the peak of this device is not known: train/mfu is left out")
        self.peak = None if peak is None else peak * trainer.world_size

    def log_rate(self, pl_module: LightningModule, examples_per_second: float) -> None:
        """Logs tokens in place of examples, and the share of the peak."""
        tokens = examples_per_second * self.length
        pl_module.log("train/tokens_per_second", tokens, prog_bar=True)
        if self.peak is not None:
            pl_module.log("train/mfu", tokens * self.flops / self.peak)

    @property
    def tokens_per_second(self) -> float | None:
        """Over the whole of this process's training; None for a run too short to tell."""
        examples = self.examples_per_second
        return None if examples is None else examples * self.length

    @property
    def utilisation(self) -> float | None:
        """The share of the peak that the model's FLOPs were (MFU)."""
        tokens = self.tokens_per_second
        return None if tokens is None or not self.peak else tokens * self.flops / self.peak


def _matrix_weights(module: nn.Module, repeated: float) -> float:
    """Those of all matrices, each as often as a token passes it."""
    return sum(
        part.weight.numel() * (repeated if "albert_layer_groups" in name else 1)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    )
