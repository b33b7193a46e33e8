"""Transfer between files and a CUDA device through a few pinned buffers, reading and transferring at the same time.

A device reads pinned memory directly, three to five times as fast as other memory, while the CPU continues. Several threads
therefore read pieces of the file, each into a free buffer, and queue its transfer on a stream of the device; a buffer is
free again after its transfer. Saving works the other way round: while one piece is written, the next one is transferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from statedict.files import spread
from statedict.state import Bulk, Leaf, Read, Storage

from ._dtypes import TORCH_DTYPES

# 16 MiB in total: reads are fastest in pieces of 1 to 8 MiB, and with several buffers reading and transfer overlap.
SLOTS = 8
SLOT = 2 << 20
# Bytes. Tensors in one buffer start at multiples of this, which is a multiple of every element size.
ALIGNMENT = 64

# The type stubs of torch.cuda are incomplete.
CUDA: Any = torch.cuda


class RingChunk(NamedTuple):
    """A run of a tensor's elements, and its position in the file.

    Attributes:
        target: the flat tensor on the device.
        storage, start: the storage to read from, and the first byte.
        dtype: the dtype in the file; elements are cast on the device.
    """

    target: torch.Tensor
    storage: Storage
    start: int
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return self.target.numel() * self.dtype.itemsize

    @property
    def room(self) -> int:
        return -(-self.nbytes // ALIGNMENT) * ALIGNMENT


class _Slot(NamedTuple):
    """A pinned buffer, and the event that its last transfer is complete."""

    memory: torch.Tensor
    fetched: Any


def reaches(device: torch.device) -> bool:
    """Whether transfers to this device use the buffers."""
    return device.type == "cuda"


def is_sendable(leaf: Any) -> bool:
    """Whether the leaf can be read in pieces: it is contiguous, and not compressed in the file."""
    return (
        isinstance(leaf, Leaf)
        and leaf.spec.dtype in TORCH_DTYPES
        and leaf.spec.is_contiguous
        and not (leaf.traits.conj or leaf.traits.neg)
        and leaf.spec.nbytes > 0
        and isinstance(leaf.storage.source, Bulk)
        and leaf.storage.source.in_pieces(leaf.storage)
    )


def send(tensors: Sequence[torch.Tensor], leaves: Sequence[Leaf]) -> None:
    """Fill contiguous tensors on CUDA devices with the elements of contiguous leaves, and wait for the transfers.

    The transfers are queued after the current work of the device's stream. Checksums must be verified by the caller. Raises
    any error of reading; tensors written by then stay so.
    """
    by_device: dict[torch.device, list[RingChunk]] = {}
    for tensor, leaf in zip(tensors, leaves):
        by_device.setdefault(tensor.device, []).extend(_chunks(tensor, leaf))
    for device, chunks in by_device.items():
        _send(device, list(_pieces(chunks)))


def fetch(flat: torch.Tensor) -> Iterator[memoryview]:
    """Yield the bytes of a flat uint8 tensor on a CUDA device, in order, each piece in its own pinned memory.

    While the caller uses a piece, the next one is transferred.
    """
    stream = CUDA.Stream(flat.device)
    stream.wait_stream(CUDA.current_stream(flat.device))
    waiting: tuple[torch.Tensor, Any] | None = None
    for piece in torch.split(flat, SLOT) if len(flat) else ():
        with CUDA.stream(stream):
            here = pinned(len(piece))
            here.copy_(piece, non_blocking=True)
            arrived = CUDA.Event()
            arrived.record(stream)
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = here, arrived
    if waiting is not None:
        yield _arrived(*waiting)


def pinned(nbytes: int) -> torch.Tensor:
    """Allocate pinned memory. PyTorch caches freed pinned memory and reuses it once the device has finished with it."""
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)


def _arrived(here: torch.Tensor, event: Any) -> memoryview:
    event.synchronize()
    view: memoryview = here.numpy().data
    return view


def _chunks(tensor: torch.Tensor, leaf: Leaf) -> Iterator[RingChunk]:
    """Split a tensor into runs that fit into a buffer."""
    dtype = TORCH_DTYPES[leaf.spec.dtype]
    start = leaf.spec.offset * dtype.itemsize
    for run in torch.split(tensor.detach().view(-1), SLOT // dtype.itemsize):
        yield RingChunk(run, leaf.storage, start, dtype)
        start += len(run) * dtype.itemsize


def _pieces(chunks: Sequence[RingChunk]) -> Iterator[list[RingChunk]]:
    """Group the chunks so that each group fits into a buffer and has one source."""
    piece: list[RingChunk] = []
    room = 0
    for chunk in chunks:
        if piece and (chunk.room > room or chunk.storage.source is not piece[0].storage.source):
            yield piece
            piece = []
        if not piece:
            room = SLOT
        piece.append(chunk)
        room -= chunk.room
    if piece:
        yield piece


def _send(device: torch.device, pieces: Sequence[list[RingChunk]]) -> None:
    stream = CUDA.Stream(device)
    stream.wait_stream(CUDA.current_stream(device))
    free: SimpleQueue[_Slot] = SimpleQueue()
    for memory in torch.split(pinned(min(SLOTS, len(pieces)) * SLOT), SLOT):
        free.put(_Slot(memory, CUDA.Event()))

    def send_piece(piece: list[RingChunk]) -> None:
        slot = free.get()
        try:
            slot.fetched.synchronize()
            runs = _read(piece, slot.memory)
            with CUDA.stream(stream), torch.no_grad():
                for chunk, run in zip(piece, runs):
                    # Cast on the device: fewer bytes may have to be transferred, and the CPU is busy.
                    found = run if chunk.target.dtype is chunk.dtype else run.to(device, non_blocking=True)
                    chunk.target.copy_(found, non_blocking=True)
                slot.fetched.record(stream)
        finally:
            free.put(slot)

    try:
        spread(send_piece, pieces, SLOTS)
    finally:
        stream.synchronize()


def _read(piece: Sequence[RingChunk], memory: torch.Tensor) -> list[torch.Tensor]:
    """Read the elements of the chunks into the buffer."""
    raw: memoryview = memory.numpy().data
    reads, runs = [], []
    at = 0
    for chunk in piece:
        reads.append(Read(chunk.storage, chunk.start, raw[at : at + chunk.nbytes]))
        runs.append(memory[at : at + chunk.nbytes].view(chunk.dtype))
        at += chunk.room
    piece[0].storage.source.read_into(reads, verify=False)
    return runs
