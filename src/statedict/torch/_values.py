"""Inert values of a file as PyTorch's: sizes, dtypes, devices, layouts, storages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from statedict.errors import FormatError
from statedict.formats import Size, TorchConstant
from statedict.state import DType

from ._dtypes import TORCH_DTYPES


def revived(value: Any) -> Any:
    """The PyTorch value that an inert one stands for; any other value as it is.

    >>> from statedict.state import dtype
    >>> revived(dtype("float16"))
    torch.float16
    """
    revive = _REVIVE.get(type(value))
    return value if revive is None else revive(value)


def _constant(value: TorchConstant) -> Any:
    if value.kind != "device":
        # `name` is one of a closed list that the reader checked, so this looks up nothing of a file's choice.
        return getattr(torch, value.name)
    try:
        return torch.device(value.name)
    except RuntimeError as error:
        raise FormatError(
            f"it holds a device that PyTorch does not know: {str(error).partition(chr(10))[0]}"
        ) from error


def _dtype(value: DType) -> Any:
    return TORCH_DTYPES.get(value, value)


_REVIVE: dict[type, Callable[[Any], Any]] = {Size: torch.Size, DType: _dtype, TorchConstant: _constant}
