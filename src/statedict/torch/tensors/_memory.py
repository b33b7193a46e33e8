"""The Source of live tensors: the bytes of their storages, on any device.

`storage.where` is the `torch.UntypedStorage`. CPU memory is viewed in place; memory of other devices is copied in pieces
when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from statedict.errors import SaveError
from statedict.state import Read, Storage, check_bounds
from statedict.state import memory_at as memory_at

from ._ring import SLOT, fetch


class LiveMemory:
    """The Source of torch's storages in memory."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            if len(into):
                torch.frombuffer(into, dtype=torch.uint8).copy_(_bytes(storage)[start : start + len(into)])

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        check_bounds([(storage, start, stop - start)])
        here = self.view(storage)
        if here is not None:
            yield here[start:stop]
            return
        found = _bytes(storage)[start:stop]
        if found.is_cuda and len(found) > SLOT:
            yield from fetch(found)
        else:
            for piece in torch.split(found, SLOT) if len(found) else ():
                yield piece.to("cpu", copy=True).numpy().data

    def verify(self, storages: Iterable[Storage]) -> None:
        """Do nothing: memory has no checksums."""

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        if storage.location != "cpu":
            return None
        if not storage.nbytes:
            return memoryview(bytearray())
        _require_memory(storage)
        return memory_at(storage.where.data_ptr(), storage.nbytes, storage.where)


def storage_of(tensor: torch.Tensor) -> Storage:
    """The Storage of a tensor; its key is the same as for NumPy arrays over the same memory."""
    untyped = tensor.untyped_storage()
    nbytes, pointer = untyped.nbytes(), untyped.data_ptr()
    location = "cpu" if tensor.is_cpu else _location(untyped.device)
    # Two storages of one device never have the same start and end, except those without memory.
    key = ("memory" if tensor.is_cpu else location, pointer, nbytes if pointer and nbytes else untyped._cdata)
    return Storage(MEMORY, key, nbytes, untyped, location)


def _location(device: torch.device) -> str:
    return device.type if device.index is None or device.type in ("meta", "mps") else f"{device.type}:{device.index}"


def _bytes(storage: Storage) -> torch.Tensor:
    if storage.location == "meta":
        raise SaveError("a tensor on the meta device has no elements: allocate it first (to_empty)")
    _require_memory(storage)
    untyped: torch.UntypedStorage = storage.where
    return torch.empty(0, dtype=torch.uint8, device=untyped.device).set_(untyped)


def _require_memory(storage: Storage) -> None:
    """Raise SaveError if the memory was freed or has shrunk."""
    nbytes = storage.where.nbytes()
    if nbytes < storage.nbytes:
        raise SaveError(
            f"a storage of {storage.nbytes:,} bytes now has {nbytes:,}: it was freed or resized after its tensor was read; "
            "allocate it again"
        )


MEMORY = LiveMemory()
