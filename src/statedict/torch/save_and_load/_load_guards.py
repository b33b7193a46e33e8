"""What a restricted load checks of the calls in a pickle, beyond whether they are allowed.

What PyTorch allows includes classes that allocate memory of any size when called, `Tensor.set_`, which enlarges a storage
that is too small, and quantised tensors, which PyTorch 2.7 lets reach beyond their storage.
"""

from __future__ import annotations

from typing import Any

import torch

from ..tensors._storages import unvalidated
from ._load_policy import Refused

REBUILD_QUANTISED: Any = torch._utils._rebuild_qtensor
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
    """Call `Tensor.set_(*state)`; raises RuntimeError if that enlarges the storage in `state`, or reaches beyond it."""
    source = state[0] if len(state) else None
    storage: Any = source.untyped_storage() if isinstance(source, torch.Tensor) else None
    before = None if storage is None else storage.nbytes()
    tensor.set_(*state)
    if storage is not None and storage.nbytes() != before:
        raise RuntimeError("Trying to resize storage that is not resizable")
    _check_bounds(tensor)


def watched(made_by: Any, made: Any) -> Any:
    """Return the object; sparse tensors are also registered for validation at the end of the load.

    Raises RuntimeError for a quantised tensor that reaches beyond its storage.
    """
    if made_by in torch._tensor_classes and "sparse" in made_by.__module__:
        unvalidated().append(made)
    if made_by is REBUILD_QUANTISED:
        _check_bounds(made)
    return made


def rebuild_quantised(*args: Any) -> torch.Tensor:
    made: torch.Tensor = REBUILD_QUANTISED(*args)
    _check_bounds(made)
    return made


def _check_bounds(tensor: torch.Tensor) -> None:
    """Raise RuntimeError if a quantised tensor reaches beyond its storage, which `Tensor.set_` of PyTorch 2.7 allows."""
    if not tensor.is_quantized or tensor.is_meta or not tensor.numel():
        return
    first = tensor.storage_offset()
    last = first + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    if first < 0 or (last + 1) * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise RuntimeError("Trying to resize storage that is not resizable")
