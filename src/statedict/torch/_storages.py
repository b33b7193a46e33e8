"""torch's storages: made, wrapped, and their memory on the CPU as bytes of Python's."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

# PyTorch's own annotations of these are missing, or say too little.
_UNTYPED: Any = torch.UntypedStorage
_TYPED: Any = torch.storage.TypedStorage


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
    return _TYPED(device=device, dtype=dtype, _internal=True)


def has_memory(typed_storage: Any) -> bool:
    """Whether there is anything that could be shared."""
    return bool(typed_storage._data_ptr() != 0)


def validate_sparse() -> None:
    """Check the sparse tensors that have been loaded, if PyTorch is set to."""
    torch._utils._validate_loaded_sparse_tensors()  # type: ignore[no-untyped-call]


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
