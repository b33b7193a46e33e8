"""Between files and a CUDA device: through a few pinned buffers, reading and transferring at the same time.

Pinned memory is what the device can fetch by itself, at three to five times the speed of other memory, while the processor
goes on. So several threads read pieces of the file, each into a buffer that is free, and queue its transfer on a stream of
the device; a buffer is free again when the device has fetched it. Saving goes the other way: while a piece is written, the
next one is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from statedict.files import spread
from statedict.state import Bulk, Leaf, Read, Storage

from ._dtypes import TORCH_DTYPES

# 16 MiB in all: reads are quickest in pieces of 1 to 8 MiB, and each thread can read while another's buffer is fetched.
SLOTS = 8
SLOT = 2 << 20
# Tensors of one piece begin at multiples of this: of every element's size.
ALIGNMENT = 64

# Its stubs have no types for half of it.
CUDA: Any = torch.cuda


class Part(NamedTuple):
    """A run of a tensor's elements, and where they come from.

    Attributes:
        target: flat, on the device.
        storage, start: whose bytes, and from which on.
        dtype: what they are there; they are cast on the device.
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
    """A pinned buffer, and the event after which the device has fetched it."""

    memory: torch.Tensor
    fetched: Any


def reaches(device: torch.device) -> bool:
    """Whether tensors of the device go through here."""
    return device.type == "cuda"


def is_sendable(leaf: Any) -> bool:
    """Whether the leaf is a run of elements that can be read piece by piece: one that is inflated comes as a whole."""
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
    """Fill contiguous tensors on CUDA devices with the elements of contiguous leaves; all are there when it returns.

    They are queued behind what the device's current stream has to do. Checksums are the caller's to settle. Raises what
    reading raises; tensors that have been written by then stay so.
    """
    by_device: dict[torch.device, list[Part]] = {}
    for tensor, leaf in zip(tensors, leaves):
        by_device.setdefault(tensor.device, []).extend(_parts(tensor, leaf))
    for device, parts in by_device.items():
        _send(device, list(_pieces(parts)))


def fetch(flat: torch.Tensor) -> Iterator[memoryview]:
    """The bytes of a flat tensor of bytes on a CUDA device, in order, in pieces of pinned memory that is only theirs.

    While a piece is used the next one is under way.
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
    """Bytes of pinned memory. PyTorch keeps what is freed, once the device is done with it, for the next who asks."""
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)


def _arrived(here: torch.Tensor, event: Any) -> memoryview:
    event.synchronize()
    view: memoryview = here.numpy().data
    return view


def _parts(tensor: torch.Tensor, leaf: Leaf) -> Iterator[Part]:
    """The tensor in runs that fit a buffer."""
    dtype = TORCH_DTYPES[leaf.spec.dtype]
    start = leaf.spec.offset * dtype.itemsize
    for run in torch.split(tensor.detach().view(-1), SLOT // dtype.itemsize):
        yield Part(run, leaf.storage, start, dtype)
        start += len(run) * dtype.itemsize


def _pieces(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """The parts in runs that fit a buffer together, all of one source."""
    piece: list[Part] = []
    room = 0
    for part in parts:
        if piece and (part.room > room or part.storage.source is not piece[0].storage.source):
            yield piece
            piece = []
        if not piece:
            room = SLOT
        piece.append(part)
        room -= part.room
    if piece:
        yield piece


def _send(device: torch.device, pieces: Sequence[list[Part]]) -> None:
    stream = CUDA.Stream(device)
    stream.wait_stream(CUDA.current_stream(device))
    free: SimpleQueue[_Slot] = SimpleQueue()
    for memory in torch.split(pinned(min(SLOTS, len(pieces)) * SLOT), SLOT):
        free.put(_Slot(memory, CUDA.Event()))

    def send_piece(piece: list[Part]) -> None:
        slot = free.get()
        try:
            slot.fetched.synchronize()
            runs = _read(piece, slot.memory)
            with CUDA.stream(stream), torch.no_grad():
                for part, run in zip(piece, runs):
                    # A cast is for the device: half the bytes may travel, and the processor has none to spare.
                    found = run if part.target.dtype is part.dtype else run.to(device, non_blocking=True)
                    part.target.copy_(found, non_blocking=True)
                slot.fetched.record(stream)
        finally:
            free.put(slot)

    try:
        spread(send_piece, pieces, SLOTS)
    finally:
        stream.synchronize()


def _read(piece: Sequence[Part], memory: torch.Tensor) -> list[torch.Tensor]:
    """The elements of the parts, read into the buffer."""
    raw: memoryview = memory.numpy().data
    reads, runs = [], []
    at = 0
    for part in piece:
        reads.append(Read(part.storage, part.start, raw[at : at + part.nbytes]))
        runs.append(memory[at : at + part.nbytes].view(part.dtype))
        at += part.room
    piece[0].storage.source.read_into(reads, verify=False)
    return runs
