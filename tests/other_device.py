"""A device that is not the CPU, where there is none: what mixes the two fails here as on a GPU.

Its tensors say that they are on ``meta`` (the one device that every build of PyTorch knows besides
the CPU), hold their values on the CPU, and go to no operation together with the CPU's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Positions and values to write may come from the CPU on a GPU as well.
TAKE_BOTH = {
    "aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_", "aten::_index_put_impl_",
}  # fmt: skip


# What CUDA has for longer floating-point numbers alone.
NOT_OF_BFLOAT16 = {"aten::_embedding_bag_per_sample_weights_backward"}


class OtherDevice(Tensor):
    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, held: Tensor) -> OtherDevice:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device("meta"),
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()


class _Factories(TorchDispatchMode):
    """For what makes tensors without having any: ``torch.arange(3, device=...)``."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


@contextmanager
def other_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it ``to_other`` tensors can be computed with."""
    autocast, is_enabled, generator = torch.autocast, torch.is_autocast_enabled, torch.Generator

    def autocast_of(device: str, **further: Any) -> Any:
        return nullcontext() if device == "meta" else autocast(device, **further)

    def is_autocast_enabled(device: str) -> bool:
        return device != "meta" and is_enabled(device)

    with monkeypatch.context() as patch, _Factories():
        patch.setattr(torch, "autocast", autocast_of)
        patch.setattr(torch, "is_autocast_enabled", is_autocast_enabled)
        patch.setattr(torch, "Generator", lambda device="cpu": generator("cpu"))
        yield


def to_other(tensor: Tensor) -> Tensor:
    return OtherDevice(tensor.detach().clone())


def to_cpu(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.held if isinstance(tensor, OtherDevice) else tensor.cpu()


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    theirs = [tensor for tensor in tensors if isinstance(tensor, OtherDevice)]
    name = function._schema.name
    if name in OPDEFS:  # an operator of our own, whose parts are to be looked at
        with _Factories():
            return OPDEFS[name]._init_fn(*args, **kwargs)
    if theirs and name not in TAKE_BOTH:
        for tensor in tensors:
            if tensor.dim() and not isinstance(tensor, OtherDevice):
                raise RuntimeError(f"{name} got tensors of two devices")
        if name in NOT_OF_BFLOAT16 and theirs[0].dtype == torch.bfloat16:
            raise NotImplementedError(f"{name} for bfloat16")
    wanted = kwargs.get("device")
    is_other = bool(theirs) if wanted is None else torch.device(wanted).type == "meta"
    if wanted is not None:
        kwargs = {**kwargs, "device": "cpu"}
    result = function(*tree_map(_held, args), **tree_map(_held, kwargs))
    written = _written(function, args, kwargs)
    if written and result is not None:
        return written[0] if len(written) == 1 else tuple(written)
    return tree_map(_wrapped, result) if is_other else result


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, OtherDevice) else leaf


def _wrapped(leaf: Any) -> Any:
    return OtherDevice(leaf) if isinstance(leaf, Tensor) else leaf


def _written(function: Any, args: Any, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation in place, or with ``out``, writes to and returns."""
    arguments = enumerate(function._schema.arguments)
    given = [(arg, args[i] if i < len(args) else kwargs.get(arg.name)) for i, arg in arguments]
    return [x for arg, x in given if arg.alias_info is not None and arg.alias_info.is_write]
