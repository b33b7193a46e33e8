"""torch's storages: made, wrapped, and their memory on the CPU as bytes of Python's."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# PyTorch's own annotations of these are missing, or say too little.
_UNTYPED: Any = torch.UntypedStorage
_TYPED: Any = torch.storage.TypedStorage
_BASE: Any = torch._C.StorageBase


WRITABLE = 0x200
_VIEW = ctypes.pythonapi.PyMemoryView_FromMemory
_VIEW.argtypes, _VIEW.restype = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int), ctypes.py_object


def new_storage(nbytes: int, device: str = "cpu") -> torch.UntypedStorage:
    """A storage of that many bytes, not filled."""
    made: torch.UntypedStorage = _UNTYPED(nbytes, device=device)
    return made


def mapped_storage(path: str, nbytes: int, *, shared: bool) -> torch.UntypedStorage:
    """A storage that is a file's bytes; changes stay in this process unless it is shared."""
    made: torch.UntypedStorage = _UNTYPED.from_file(path, shared, nbytes)
    return made


def slice_of(storage: torch.UntypedStorage, start: int, nbytes: int) -> torch.UntypedStorage:
    """A storage over some of the bytes of another."""
    part: Any = storage[start : start + nbytes]
    found: torch.UntypedStorage = part
    return found


def typed(storage: Any, dtype: torch.dtype) -> Any:
    """A storage as elements of a dtype, which is how PyTorch's functions that rebuild tensors take it."""
    return _TYPED(wrap_storage=storage, dtype=dtype, _internal=True)


def empty_typed(device: torch.device, dtype: torch.dtype) -> Any:
    """A storage of no elements."""
    return typed(fixed(new_storage(0, str(device))), dtype)


def fixed(storage: Any) -> Any:
    """The same memory as a storage that cannot be resized, which is how PyTorch's own reader makes them.

    `Tensor.set_` enlarges a storage that is too small for a tensor with memory that nobody has filled; for a tensor whose
    sizes are wrong in the file it must fail.
    """
    if not isinstance(storage, torch.UntypedStorage) or storage.device.type == "meta" or not storage.resizable():
        return storage
    return _BASE.__getitem__(storage, slice(0, storage.nbytes()))


def has_memory(typed_storage: Any) -> bool:
    """Whether there is anything that could be shared."""
    return bool(typed_storage._data_ptr() != 0)


@contextmanager
def sparse_validated() -> Iterator[None]:
    """Check the sparse tensors that are loaded inside: indices beyond a shape reach memory that is not the tensor's.

    PyTorch checks them only if it is set to; here that decides only about those that have no elements to be checked.
    """
    waiting = torch._utils._sparse_tensors_to_validate
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
    """A writable view of a CPU storage's bytes, which does not keep the storage: who uses it must.

    Not by way of a tensor: under FakeTensorMode that would be a fake one, which has no memory.
    """
    nbytes = storage.nbytes()
    if not nbytes:
        return memoryview(bytearray())
    view: memoryview = _VIEW(storage.data_ptr(), nbytes, WRITABLE)
    return view


def kept_bytes_of(storage: torch.UntypedStorage) -> memoryview:
    """As `bytes_of`, and the view keeps the storage."""
    memory: Any = (ctypes.c_ubyte * storage.nbytes()).from_address(storage.data_ptr())
    memory.storage = storage
    return memoryview(memory).cast("B")
