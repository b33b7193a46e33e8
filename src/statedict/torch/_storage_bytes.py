"""The memory of a torch storage on the CPU, as bytes of Python's, whatever modes of torch are active."""

from __future__ import annotations

import ctypes

import torch


def bytes_of(storage: torch.UntypedStorage) -> memoryview:
    """A writable view of a CPU storage's bytes. Who holds it holds the storage too, for as long as it is used.

    Not by way of a tensor: under FakeTensorMode that would be a fake one, which has no memory.
    """
    nbytes = storage.nbytes()
    if not nbytes:
        return memoryview(bytearray())
    return memoryview((ctypes.c_char * nbytes).from_address(storage.data_ptr())).cast("B")
