"""A sparse encoder as one ONNX file that serves a range of lengths, checked before it is used.

ONNX rather than ``torch.export``'s own format: it runs where neither PyTorch nor Python is, and
what the exported graph computes can be checked by an independent implementation, onnxruntime.
(The graph is ``torch.export``'s all the same: it is what PyTorch translates to ONNX.) The form of
attention in it is ``exportable``: no N x N scores for sparse masks, and exact for any number of
open rows and columns.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aaa.models.positions import check_reads_texts, longest_text
from aaa.saved import load_sparse
from aaa.sparse import sparse_layers

MODEL_FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
EXAMPLE_SHAPE = (2, 21)  # of what is traced: no size that the graph could take for a constant
SHORTEST = 2  # [CLS] and [SEP]; torch.export treats a size of 1 as a constant
LARGEST_BATCH = 1024
TOLERANCE = 1e-4  # of outputs, in parts of the largest


@dataclass(frozen=True)
class Check:
    """One batch that both ran: its size and length, and how far apart outputs are at most.

    ``difference`` is in parts of the largest output's magnitude (or of 1, if that is smaller).
    """

    batch: int
    tokens: int
    difference: float


def check_installed() -> None:
    """Raises a ValueError unless what exporting needs is installed."""
    missing = [
        name
        for name in ("onnx", "onnxscript", "onnxruntime")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ValueError(f"aaa export needs {', '.join(missing)}: pip install {' '.join(missing)}")


def export_onnx(folder: Path, target: Path, longest: int) -> list[Check]:
    """Writes a saved sparse model as ONNX, and checks it against PyTorch in onnxruntime.

    Batch and length are free, from 1 to 1024 texts of 2 to ``longest`` tokens; ``attention_mask``
    tells what is padding.

    Args:
        folder: what ``load_sparse`` reads.
        target: the file to write. It appears once it has passed the check.
        longest: in tokens.

    Returns:
        What was checked: batches of several lengths up to the longest, with and without padding,
        against the model under the executor ``dense``.

    Raises:
        ValueError: if the model does not read texts one by one, ``longest`` is more than the
            encoder has positions for, its pattern cannot be exported, or the exported model's
            outputs differ from PyTorch's.
    """
    model = load_sparse(folder, executor="exportable")
    check_reads_texts(model)
    _check_longest(model, longest)
    _prepare_patterns(model, longest)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as folder_of_parts:
        # By its own name: beyond 1.5 GB a graph names the file beside it that has its weights.
        partial = Path(folder_of_parts) / target.name
        write_onnx(model, longest, partial)
        reference = load_sparse(folder, executor="dense")
        checks = list(_compare(reference, longest, partial))
        worst = max(checks, key=lambda check: check.difference)
        if not worst.difference <= TOLERANCE:
            raise ValueError(
                f"the exported model differs from PyTorch's by {worst.difference:.1e} of the "
                f"largest output on {worst.batch} texts of {worst.tokens} tokens, which is more "
                f"than {TOLERANCE:.0e}: it was not kept"
            )
        for part in sorted(partial.parent.iterdir(), reverse=True):  # the weights first
            part.replace(target.with_name(part.name))
    return checks


def _prepare_patterns(model: PreTrainedModel, longest: int) -> None:
    """Draws ahead what is drawn; a ValueError for patterns that read the text or the length."""
    layers = sparse_layers(model)
    for layer in layers:
        wanted = sorted(layer.pattern.wants - {"draws"})  # which are made in training alone
        if wanted:
            raise ValueError(
                f"{layer.pattern} cannot be exported: it reads {' and '.join(wanted)} of each "
                "text; patterns of rows, columns, diagonals and cells drawn at random can"
            )
    try:
        for layer in layers:
            layer.pattern.draw_ahead(longest)
        with torch.inference_mode():
            model(**_texts(model, _input_names(model), *EXAMPLE_SHAPE))
    except ValueError as error:
        raise ValueError(f"{layers[0].pattern} cannot be exported: {error}") from error


def _check_longest(model: PreTrainedModel, longest: int) -> None:
    most = longest_text(model)
    if not EXAMPLE_SHAPE[1] < longest <= most:
        raise ValueError(
            f"longest={longest}, but this encoder takes texts of up to {most} tokens, and a range "
            f"of lengths reaches beyond {EXAMPLE_SHAPE[1]}"
        )


def _input_names(model: PreTrainedModel) -> list[str]:
    typed = getattr(model.config, "type_vocab_size", 0) > 1
    return [name for name in INPUTS if name != "token_type_ids" or typed]


def write_onnx(model: PreTrainedModel, longest: int, path: Path) -> None:
    """Writes an encoder as it is, sparse or not, unchecked; see ``export_onnx``."""
    names = _input_names(model)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    tokens = torch.export.Dim("tokens", min=SHORTEST, max=longest)
    example = _texts(model, names, *EXAMPLE_SHAPE)
    with torch.no_grad(), _quiet():
        graph = torch.export.export(
            model, (), example, strict=False,
            dynamic_shapes={name: {0: batch, 1: tokens} for name in names},
        )  # fmt: skip
        outputs = list(model(**example, return_dict=True))
        program = torch.onnx.export(
            graph, dynamo=True, input_names=list(names), output_names=outputs
        )
    assert program is not None
    program.save(path)


def _compare(reference: PreTrainedModel, longest: int, path: Path) -> Iterator[Check]:
    import onnxruntime

    names = _input_names(reference)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    lengths = sorted({SHORTEST, 17, longest // 2, longest})
    for batch, tokens in [(1, tokens) for tokens in lengths] + [(3, t) for t in lengths]:
        texts = _texts(reference, names, batch, tokens)
        actual = session.run(None, {name: tensor.numpy() for name, tensor in texts.items()})
        with torch.inference_mode():
            expected = reference(**texts, return_dict=True).to_tuple()
        real = texts["attention_mask"].bool()
        differences = [
            _difference(torch.from_numpy(one), other, real)
            for one, other in zip(actual, expected, strict=True)
        ]
        yield Check(batch, tokens, max(differences))


def _difference(actual: Tensor, expected: Tensor, real_BN: Tensor) -> float:
    """What stands in the place of padding has no meaning."""
    if expected.shape[:2] == real_BN.shape:
        actual, expected = actual[real_BN], expected[real_BN]
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1))


def _texts(
    model: PreTrainedModel, names: Sequence[str], batch: int, tokens: int
) -> dict[str, Tensor]:
    """Random texts, the first of them as long as can be, the others padded.

    A second segment begins in the middle where the encoder knows of segments.
    """
    generator = torch.Generator().manual_seed(1000 * tokens + batch)
    ids_BN = torch.randint(model.config.vocab_size, (batch, tokens), generator=generator)
    keep_BN = torch.ones(batch, tokens, dtype=torch.long)
    for text in range(1, batch):
        padding = text * (tokens - 1) // batch
        keep_BN[text, tokens - padding :] = 0
    segments_BN = torch.zeros_like(ids_BN)
    segments_BN[:, tokens // 2 :] = 1
    padding_id = model.config.pad_token_id or 0
    ids_BN = ids_BN.masked_fill(keep_BN == 0, padding_id)
    made = {"input_ids": ids_BN, "attention_mask": keep_BN, "token_type_ids": segments_BN}
    return {name: made[name] for name in names}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its stages, and warns of what does not matter here."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            exporter.setLevel(level)
