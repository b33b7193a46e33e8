"""Prevent a restricted pickle from allocating memory that the file does not fill.

PyTorch's default list allows classes that allocate memory of any size when called, and `Tensor.set_`, which enlarges a
storage that is too small.
"""

from __future__ import annotations

from typing import Any

import torch

from ._load_policy import Refused

_FROM_TYPE: Any = torch._tensor._rebuild_from_type_v2


def check_call(function: Any, args: Any) -> Any:
    """Return the function that is called in the end: one of PyTorch's functions calls its argument.

    Raises Refused if it is a storage class, or a dense tensor class with arguments; no pickle needs these.
    """
    while function is _FROM_TYPE and len(args) == 4:
        function, args = args[0], args[2]
    is_storage = function is torch.UntypedStorage or function is torch.storage.TypedStorage
    if is_storage or (args and _is_dense_class(function)):
        raise Refused(f"{torch.typename(function)} is called, which would allocate memory that the file does not fill")
    return function


def _is_dense_class(function: Any) -> bool:
    return function is torch.Tensor or (function in torch._tensor_classes and "sparse" not in function.__module__)


def set_tensor(tensor: torch.Tensor, state: Any) -> None:
    """Call `Tensor.set_(*state)`; raises RuntimeError if that enlarges the storage in `state`."""
    source = state[0] if len(state) else None
    storage: Any = source.untyped_storage() if isinstance(source, torch.Tensor) else None
    before = None if storage is None else storage.nbytes()
    tensor.set_(*state)
    if storage is not None and storage.nbytes() != before:
        raise RuntimeError("Trying to resize storage that is not resizable")
