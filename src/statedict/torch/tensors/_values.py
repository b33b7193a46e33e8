"""Convert inert values of a file to PyTorch's: sizes, dtypes, devices, layouts, generators, instances of allowed classes.

PyTorch has a list of functions and classes that a restricted load may call, and a list of those that the program allows
(`torch.serialization.add_safe_globals`, `safe_globals`). Both apply here, by PyTorch's own rules: nothing else is called,
and an object's state is set only if its class is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from statedict.errors import FormatError
from statedict.formats import Size, TorchConstant, TypedStorage
from statedict.state import DType, Maker, Opaque, every, maker_of

from ._allowed import callers_globals
from ._dtypes import TORCH_DTYPES


def revived(value: Any) -> Any:
    """Return the PyTorch value for an inert one; any other value unchanged.

    >>> from statedict.state import dtype
    >>> revived(dtype("float16"))
    torch.float16
    """
    revive = _REVIVE.get(type(value))
    return value if revive is None else revive(value)


def maker(value: Opaque) -> Maker | None:
    """Return how to make the value of an Opaque; None if its class is neither known nor allowed.

    >>> maker(Opaque("os", "system", ("true",))) is None
    True
    """
    return maker_of(value) or _OWN.get((value.module, value.name, value.args is None)) or _allowed(value)


def _constant(value: TorchConstant) -> Any:
    if value.kind != "device":
        # The reader has checked `name` against a fixed list, so a file cannot choose the attribute.
        return getattr(torch, value.name)
    try:
        return torch.device(value.name)
    except RuntimeError as error:
        raise FormatError(f"the file contains an invalid device: {str(error).partition(chr(10))[0]}") from error


def _dtype(value: DType) -> Any:
    return TORCH_DTYPES.get(value, value)


def storage_shown(array: torch.Tensor, storage: TypedStorage) -> Any:
    """Return the storage for a bare storage in a file; `array` covers all of it."""
    untyped = array.untyped_storage()
    typed: Any = torch.TypedStorage
    return untyped if storage.dtype is None else typed(wrap_storage=untyped, dtype=array.dtype, _internal=True)


def set_attributes(tensor: torch.Tensor, attributes: Mapping[str, Any]) -> None:
    """Set the Python attributes that were saved with a tensor; the reader has rejected attributes with a special meaning."""
    tensor.__dict__.update(attributes)


# classes that PyTorch's lists allow


def _allowed(value: Opaque) -> Maker | None:
    named = _found(value.path)
    if named is None or not all(_is_allowed(each) for each in every(value) if isinstance(each, Opaque)):
        return None
    if value.args is None:
        return Maker(lambda args, kwargs: named)
    make = partial(named.__new__, named) if value.new else named
    return Maker(lambda args, kwargs: make(*args), _build)


def _found(path: str) -> Any:
    """The function or class at `path`, if it is on one of the lists."""
    callers = callers_globals()
    if path in callers:
        # Importing the class allows it, but a DTensor needs the process group that it was made in.
        return None if path.startswith("torch.distributed.") else callers[path]
    return attrgetter(_SUBCLASSES[path])(torch) if path in _SUBCLASSES else None


def _is_allowed(value: Opaque) -> bool:
    """Whether the value itself (not its parts) can be made. PyTorch's lists allow neither keyword arguments nor items."""
    by_us = maker_of(value) is not None or (value.module, value.name, value.args is None) in _OWN
    return by_us or (_found(value.path) is not None and not value.kwargs and not value.items)


def _build(made: Any, state: Any, items: list[Any]) -> None:
    """Set an object's state, as the pickle opcode BUILD does."""
    kind = type(made)
    if kind not in callers_globals().values():
        raise TypeError(f"{kind.__qualname__} is not an allowed class")
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    made.__dict__.update(attributes or {})
    for name, part in (slots or {}).items():
        setattr(made, name, part)


# PyTorch classes that are always allowed


def _generator(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Generator:
    (device,) = args
    return torch.Generator(device)


def _set_generator(made: torch.Generator, state: Any, items: list[Any]) -> None:
    seed, offset, numbers = state
    made.__setstate__((seed, offset, numbers))


def _uninitialized(kind: Any) -> Maker:
    def make(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        (requires_grad,) = args
        return kind(bool(requires_grad))

    return Maker(make)


_OWN: dict[tuple[str, str, bool], Maker] = {
    ("torch._C", "Generator", False): Maker(_generator, _set_generator),
    ("torch.nn.parameter", "UninitializedParameter", False): _uninitialized(UninitializedParameter),
    ("torch.nn.parameter", "UninitializedBuffer", False): _uninitialized(UninitializedBuffer),
}
# The functions on PyTorch's default list that rebuild tensor subclasses. What they call is checked, too.
_SUBCLASSES = {
    "torch._tensor._rebuild_from_type_v2": "_tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_wrapper_subclass": "_utils._rebuild_wrapper_subclass",
}
_REVIVE: dict[type, Callable[[Any], Any]] = {Size: torch.Size, DType: _dtype, TorchConstant: _constant}
# The types of the values that `revived` changes.
REVIVED = frozenset(_REVIVE)
