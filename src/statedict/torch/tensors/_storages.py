"""Create and wrap torch storages, and view their CPU memory as bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# PyTorch's annotations of these are missing or incomplete.
_UNTYPED: Any = torch.UntypedStorage
_TYPED: Any = torch.storage.TypedStorage
_BASE: Any = torch._C.StorageBase


WRITABLE = 0x200
_VIEW = ctypes.pythonapi.PyMemoryView_FromMemory
_VIEW.argtypes, _VIEW.restype = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int), ctypes.py_object


def new_storage(nbytes: int, device: str = "cpu") -> torch.UntypedStorage:
    """Create an uninitialised storage of `nbytes` bytes."""
    made: torch.UntypedStorage = _UNTYPED(nbytes, device=device)
    return made


def mapped_storage(path: str, nbytes: int, *, shared: bool) -> torch.UntypedStorage:
    """Map a file as a storage. Unless `shared`, changes are private to this process."""
    made: torch.UntypedStorage = _UNTYPED.from_file(path, shared, nbytes)
    return made


def slice_of(storage: torch.UntypedStorage, start: int, nbytes: int) -> torch.UntypedStorage:
    """Return a storage over a range of bytes of another one."""
    part: Any = storage[start : start + nbytes]
    found: torch.UntypedStorage = part
    return found


def typed(storage: Any, dtype: torch.dtype) -> Any:
    """Wrap a storage with a dtype, as PyTorch's functions that rebuild tensors expect it."""
    return _TYPED(wrap_storage=storage, dtype=dtype, _internal=True)


def empty_typed(device: torch.device, dtype: torch.dtype) -> Any:
    """Create a typed storage without elements."""
    return typed(fixed(new_storage(0, str(device))), dtype)


def fixed(storage: Any) -> Any:
    """Return the same memory as a storage that cannot be resized, as PyTorch's own reader makes them.

    `Tensor.set_` would enlarge a storage that is too small for the tensor, with uninitialised memory; if a file contains
    wrong sizes, it must fail instead.
    """
    if not isinstance(storage, torch.UntypedStorage) or storage.device.type == "meta" or not storage.resizable():
        return storage
    return _BASE.__getitem__(storage, slice(0, storage.nbytes()))


def has_memory(typed_storage: Any) -> bool:
    """Whether the storage has memory that could be shared."""
    return bool(typed_storage._data_ptr() != 0)


def unvalidated() -> list[torch.Tensor]:
    """Return PyTorch's list of the sparse tensors that the present load must validate: since 2.15, one for each thread."""
    own: Any = getattr(torch._utils, "_get_sparse_tensors_to_validate", None)
    found: list[torch.Tensor] = own() if own else torch._utils._sparse_tensors_to_validate
    return found


@contextmanager
def sparse_validated() -> Iterator[None]:
    """Validate the sparse tensors that are loaded in this context: indices outside the shape reach other memory.

    PyTorch validates them only if that is enabled; here that setting matters only for tensors without elements.
    """
    waiting = unvalidated()
    try:
        yield
        filled = not any(tensor.is_meta for tensor in waiting) and not torch.serialization._serialization_tls.skip_data
        if waiting and filled and torch._guards.active_fake_mode() is None:
            with torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
                torch._utils._validate_loaded_sparse_tensors()  # type: ignore[no-untyped-call]
        elif waiting:
            torch._utils._validate_loaded_sparse_tensors()  # type: ignore[no-untyped-call]
    finally:
        waiting.clear()


def bytes_of(storage: torch.UntypedStorage) -> memoryview:
    """A writable view of a CPU storage's bytes. It does not keep the storage alive; the caller must.

    Not made through a tensor: under FakeTensorMode that would be a fake tensor, which has no memory.
    """
    nbytes = storage.nbytes()
    if not nbytes:
        return memoryview(bytearray())
    view: memoryview = _VIEW(storage.data_ptr(), nbytes, WRITABLE)
    return view


def kept_bytes_of(storage: torch.UntypedStorage) -> memoryview:
    """As `bytes_of`, but the view keeps the storage alive."""
    memory: Any = (ctypes.c_ubyte * storage.nbytes()).from_address(storage.data_ptr())
    memory.storage = storage
    return memoryview(memory).cast("B")
