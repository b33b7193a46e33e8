"""Back up tensors so that they can be restored bit for bit: elements, geometry, class and `requires_grad`.

Whole storages are copied, each once, because code may write through any view. Gradients and version counters are excluded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from ctypes import memmove
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from statedict.files import spread
from statedict.state import arena

from ..tensors._library import is_out_of_reach
from ..tensors._wrapper import inner_tensors, is_wrapper

Restore = Callable[[], None]
# Bytes that one thread copies at a time.
PIECE = 4 << 20


def keep(arrays: Iterable[Any]) -> Restore:
    """Back up tensors (and NumPy arrays); the returned function restores them."""
    backup = Backup()
    backup.keep(arrays)
    return backup.restore


class Backup:
    """A backup of tensors (and NumPy arrays) that grows: of each group before it is overwritten."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._restores: list[Restore] = []

    def keep(self, arrays: Iterable[Any]) -> None:
        """Add arrays. Storages of earlier groups are skipped: the backup already has all their bytes."""
        storages: list[torch.UntypedStorage] = []
        properties: list[Restore] = []
        waiting = deque(arrays)
        while waiting:
            array = waiting.popleft()
            if is_wrapper(array):
                waiting.extend(inner_tensors(array).values())
            elif isinstance(array, np.ndarray):
                properties.append(_elements_of_array(array))
            elif is_lazy(array):
                properties.append(_properties_of_lazy(array))
            elif _is_plainly_stored(array):
                untyped = array.data.untyped_storage()
                if untyped._cdata not in self._storages:
                    self._storages[untyped._cdata] = untyped
                    storages.append(untyped)
                properties.append(_properties_of(array))
            else:
                properties.append(_elements_of(array))
        here = [untyped for untyped in storages if untyped.device.type == "cpu" and untyped.nbytes()]
        there = [untyped for untyped in storages if untyped.device.type != "cpu" or not untyped.nbytes()]
        # Geometry first: a tensor whose storage was replaced gets its own storage back, and then that gets its bytes.
        self._restores.append(partial(_call_all, [*properties, _bytes_here(here), *map(_bytes_there, there)]))

    def restore(self) -> None:
        """Restore all arrays, those added last first."""
        _call_all(reversed(self._restores))


def _call_all(restores: Iterable[Restore]) -> None:
    for restore in restores:
        restore()


def _is_plainly_stored(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested and not is_out_of_reach(tensor)


def _bytes_here(storages: Sequence[torch.UntypedStorage]) -> Restore:
    """Back up storages in CPU memory: in one arena of huge pages, with several threads."""
    sizes = [untyped.nbytes() for untyped in storages]
    block = arena(sum(sizes))
    _copy_runs([untyped.data_ptr() for untyped in storages], _places(block, sizes), sizes)

    def restore() -> None:
        for untyped, nbytes in zip(storages, sizes):
            if untyped.nbytes() != nbytes:
                untyped.resize_(nbytes)
        _copy_runs(_places(block, sizes), [untyped.data_ptr() for untyped in storages], sizes)

    return restore


def _places(block: memoryview, sizes: Sequence[int]) -> list[int]:
    """The addresses of consecutive runs of bytes in a block."""
    start = np.frombuffer(block, np.uint8).ctypes.data if sizes else 0
    return [start + end - nbytes for end, nbytes in zip(accumulate(sizes), sizes)]


def _copy_runs(sources: Sequence[int], targets: Sequence[int], sizes: Sequence[int]) -> None:
    pieces = [
        (target + at, source + at, min(PIECE, nbytes - at))
        for source, target, nbytes in zip(sources, targets, sizes)
        for at in range(0, nbytes, PIECE)
    ]
    if sum(sizes) > PIECE:
        spread(_copy, pieces)
    else:
        deque(map(_copy, pieces), maxlen=0)


def _copy(run: tuple[int, int, int]) -> None:
    memmove(*run)


def _bytes_there(untyped: torch.UntypedStorage) -> Restore:
    nbytes = untyped.nbytes()
    saved: Any = untyped.clone() if nbytes and untyped.device.type != "meta" else None  # type: ignore[no-untyped-call]

    def restore() -> None:
        if untyped.nbytes() != nbytes:
            untyped.resize_(nbytes)
        if saved is not None:
            untyped.copy_(saved)

    return restore


def _properties_of(tensor: torch.Tensor) -> Restore:
    kind, alias, requires_grad = type(tensor), tensor.data, tensor.requires_grad
    properties = _geometry(alias)

    def restore() -> None:
        if type(tensor) is not kind:
            tensor.__class__ = kind
        if _geometry(tensor.data) != properties:
            tensor.data = alias
        if tensor.requires_grad is not requires_grad and tensor.is_leaf:
            tensor.requires_grad_(requires_grad)

    return restore


def _properties_of_lazy(tensor: torch.Tensor) -> Restore:
    """For a lazy parameter or buffer, which gets its class and shape when it is loaded."""
    kind, requires_grad = type(tensor), tensor.requires_grad
    with torch._C.DisableTorchFunctionSubclass():
        empty = tensor.data

    def restore() -> None:
        if type(tensor) is not kind:
            tensor.data = empty
            tensor.__class__ = kind
        if tensor.requires_grad is not requires_grad:
            with torch._C.DisableTorchFunctionSubclass():
                tensor.requires_grad_(requires_grad)

    return restore


def _geometry(tensor: torch.Tensor) -> tuple[Any, ...]:
    storage = tensor.untyped_storage()
    return storage._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _elements_of(tensor: torch.Tensor) -> Restore:
    """For tensors with their own representation (sparse, quantised, wrappers): use their own clone and copy."""
    saved = tensor.detach().clone()

    def restore() -> None:
        with torch.no_grad():
            tensor.copy_(saved)

    return restore


def _elements_of_array(array: Any) -> Restore:
    saved = array.copy()

    def restore() -> None:
        array[...] = saved

    return restore
