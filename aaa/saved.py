"""``load_sparse``: a sparse encoder from the folder that its ``save_pretrained`` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils import logging as transformers_logging

from aaa import lra_model
from aaa.patterns import Pattern
from aaa.places import first_line
from aaa.record import drop_record, read_record
from aaa.sparse import SparseSelfAttention, sparsify

GATES = ".sparse."  # in the names of all weights that belong to patterns


def load_sparse(
    folder: str | Path,
    model_class: type[PreTrainedModel] | None = None,
    executor: str | None = None,
    pattern: Pattern | None = None,
) -> PreTrainedModel:
    """The sparse encoder that ``model.save_pretrained(folder)`` saved, in evaluation mode.

    ``sparsify`` notes the pattern in the model's config, so one folder holds it all: config.json,
    and in safetensors the weights, gates included. Nothing else is read, and no code is run but
    that of transformers and ``aaa.patterns``.

    Args:
        folder: where it was saved.
        model_class: a transformers class to load it as, for example without its head; by default
            the class that it was saved from.
        executor: other than the one it was saved with.
        pattern: the pattern as it was given to ``sparsify``; needed where its class is not one of
            ``aaa.patterns``.

    Raises:
        ValueError: if the folder is missing, holds no sparse model, was made by a version with
            another format, was tampered with (the pattern was changed, weights are missing, of
            another shape or kind, too many, or not finite), is not of ``model_class``, or has a
            pattern that cannot be built by name.
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"there is no model in {str(folder)!r}: load_sparse reads a folder that "
            "save_pretrained wrote, with config.json and model.safetensors"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        pattern, saved_executor = read_record(config, pattern)
        model = _dense_model(folder, config, model_class)
        sparsify(model, pattern, executor or saved_executor)
        _load_gates(model, folder)
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be loaded: {first_line(error)}") from error
    return model.eval()


def load_dense(folder: str | Path) -> PreTrainedModel:
    """The weights of a saved sparse model under full attention, without its gates, to compare.

    Raises:
        ValueError: as ``load_sparse``.
    """
    folder = Path(folder).expanduser()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        drop_record(config)
        return _dense_model(folder, config, None).eval()
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be loaded: {first_line(error)}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No table about new weights and no bar for a model that loads in a blink."""
    level = transformers_logging.get_verbosity()
    bars: Any = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _dense_model(
    folder: Path, config: PreTrainedConfig, model_class: type[PreTrainedModel] | None
) -> PreTrainedModel:
    """The model without its gates; all weights must be there, and no other, unless as a class."""
    kind = model_class or _saved_class(config)
    try:
        with quiet_transformers():
            model, report = kind.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (AttributeError, KeyError, TypeError) as error:  # how models take a wrong config
        raise ValueError(
            f"config.json does not suit {getattr(kind, '__name__', kind)}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    if report["missing_keys"]:
        raise ValueError(f"weights are missing: {_some(report['missing_keys'])}")
    unknown = [name for name in report["unexpected_keys"] if GATES not in name]
    if unknown and model_class is None:  # a class of the user's choice may leave out the head
        raise ValueError(f"it has weights that {type(model).__name__} has not: {_some(unknown)}")
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise ValueError(f"weights are not finite: {_some(broken)}: its training came apart")
    return model


def _saved_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    names: Any = config.architectures  # as a hand may have left them
    name = str(names[0]) if isinstance(names, list) and names else "none"
    kind = getattr(transformers, name, None) or getattr(lra_model, name, None)
    if not isinstance(kind, type) or not issubclass(kind, PreTrainedModel):
        raise ValueError(f"its class {name!r} is not one of transformers: pass model_class=")
    return kind


def _load_gates(model: PreTrainedModel, folder: Path) -> None:
    """Fills the patterns' parameters and buffers; each must be there, once for those shared."""
    prefix = f"{model.base_model_prefix}."  # there or not as the model has a head or not
    saved = {name.removeprefix(prefix): tensor for name, tensor in _saved_gates(folder)}
    # Some families' layers have other names in a file than in the model.
    named = revert_weight_conversion(model, dict(_gates(model)))
    wanted = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
    if saved.keys() - wanted.keys():
        raise ValueError(
            f"it has gates that its pattern has not: {_some(saved.keys() - wanted.keys())}"
        )
    filled = {wanted[name].data_ptr() for name in saved}
    missing = [name for name, tensor in wanted.items() if tensor.data_ptr() not in filled]
    if missing:
        raise ValueError(f"gates of its pattern are missing: {_some(missing)}")
    for name, tensor in saved.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"the gates {name} are of shape {tuple(tensor.shape)}, but its pattern has "
                f"{tuple(wanted[name].shape)}"
            )
        if tensor.is_floating_point() != wanted[name].is_floating_point():
            raise ValueError(
                f"the gates {name} are {tensor.dtype}, but its pattern has {wanted[name].dtype}"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"the gates {name} are not finite: its training came apart")
        wanted[name].copy_(tensor)


def _saved_gates(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if GATES in name:
                    yield name, file.get_tensor(name)


def _weight_files(folder: Path) -> list[Path]:
    """Where transformers took the other weights from; a copy that lies beside them is none."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return [folder / SAFE_WEIGHTS_NAME]
    index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text())
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def _gates(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """What patterns have in the model's state, which shares memory with the parameters."""
    for prefix, module in model.named_modules():
        if isinstance(module, SparseSelfAttention):
            for name, tensor in module.state_dict().items():
                yield f"{prefix}.{name}", tensor


def _some(names: Any) -> str:
    """A few of many names."""
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first
