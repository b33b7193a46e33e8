"""How tensors share memory, and whether memory offered for a copy has the same layout.

Tensors that overlap are put into one Block, so that they overlap in the copy, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from statedict.errors import SaveError

ALIGNMENT = 64
# A storage is copied as a whole if it has at most this many times the bytes that its tensors use.
WASTE = 2


class Block(NamedTuple):
    """Bytes `start … start + nbytes` of a storage, and the indices of the tensors in it."""

    members: tuple[int, ...]
    start: int
    nbytes: int


class MemoryLayout(NamedTuple):
    """How tensors share memory.

    Attributes:
        lone: indices of tensors that share memory with no other; only the elements that they use are copied.
        blocks: the other tensors.
        live: address → size of every storage.
    """

    lone: list[int]
    blocks: list[Block]
    live: dict[int, int]


def layout(tensors: Sequence[torch.Tensor], chosen: Sequence[int]) -> MemoryLayout:
    """Find how the chosen tensors share memory."""
    storages = [tensors[n].untyped_storage() for n in chosen]
    addresses = list(map(torch.UntypedStorage.data_ptr, storages))
    if 0 in addresses:
        # Copying from address 0 would crash the process.
        shape = list(tensors[chosen[addresses.index(0)]].shape)
        raise SaveError(
            f"a tensor of shape {shape} has no memory: its storage was freed (FSDP frees storages between steps)"
        )
    live = dict(zip(addresses, map(torch.UntypedStorage.nbytes, storages)))
    times = Counter(addresses)
    lone, blocks = [n for n, address in zip(chosen, addresses) if times[address] == 1], []
    shared: dict[tuple[bool, int], list[int]] = {}
    for n, address in zip(chosen, addresses) if len(lone) < len(chosen) else ():
        if times[address] > 1:
            # Addresses of different devices can be equal by chance.
            shared.setdefault((tensors[n].is_cpu, address), []).append(n)
    for members in shared.values():
        for run in [members] if len(members) == 1 else _runs(tensors, members):
            if len(run) == 1:
                lone.append(run[0])
            else:
                blocks.append(_block(tensors, run))
    return MemoryLayout(lone, blocks, live)


def _runs(tensors: Sequence[torch.Tensor], members: Sequence[int]) -> list[list[int]]:
    """Group the tensors of one storage by overlap; all in one group if that wastes little memory."""
    runs: list[tuple[int, int, list[int]]] = []
    for start, stop, n in sorted((*extent(tensors[n]), n) for n in members):
        if runs and start < runs[-1][1]:
            first, last, together = runs.pop()
            together.append(n)
            runs.append((first, max(last, stop), together))
        else:
            runs.append((start, stop, [n]))
    shown = sum(stop - start for start, stop, _ in runs)
    if runs[-1][1] - runs[0][0] <= WASTE * shown + ALIGNMENT:
        return [list(members)]
    return [together for _, _, together in runs]


def _block(tensors: Sequence[torch.Tensor], members: Sequence[int]) -> Block:
    extents = [extent(tensors[n]) for n in members]
    start = min(start for start, _ in extents)
    # Aligned, so that views of every dtype stay aligned.
    start -= start % ALIGNMENT
    return Block(tuple(members), start, max(stop for _, stop in extents) - start)


def extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The range of bytes of its storage that the tensor uses: (first, one past the last)."""
    size = tensor.itemsize
    start = int(tensor.storage_offset()) * size
    reach = 1 + sum((count - 1) * step for count, step in zip(tensor.shape, tensor.stride()))
    return start, start + reach * size


def place(block: Block, tensor: torch.Tensor) -> int:
    """The offset of the tensor in its block, in bytes."""
    return int(tensor.storage_offset()) * tensor.itemsize - block.start


def strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides that `clone` would give the copy of a tensor."""
    return tensor.stride() if tensor.is_contiguous() else torch.empty_like(tensor, device="meta").stride()


def alike(tensor: torch.Tensor, kept: torch.Tensor | None, device: torch.device, wanted: tuple[int, ...]) -> bool:
    """Whether `kept` can become the copy of `tensor`, with strides `wanted`, on `device`."""
    return (
        kept is not None
        and type(kept) is torch.Tensor
        and kept.layout is torch.strided
        and kept.dtype is tensor.dtype
        and kept.shape == tensor.shape
        and kept.stride() == wanted
        and kept.device == device
        and not (kept.requires_grad or kept.is_quantized or kept.is_neg() or kept.is_conj() or kept.is_inference())
    )


def address_of(
    block: Block, tensors: Sequence[torch.Tensor], onto: Sequence[torch.Tensor | None], device: torch.device
) -> int | None:
    """The address of the block in the memory that `onto` offers for its tensors; None if the layout differs."""
    kept = onto[block.members[0]]
    if kept is None or not all(alike(tensors[n], onto[n], device, tensors[n].stride()) for n in block.members):
        return None
    storage = kept.untyped_storage()
    address = kept.data_ptr() - place(block, tensors[block.members[0]])
    within = storage.data_ptr() <= address and address + block.nbytes <= storage.data_ptr() + storage.nbytes()
    starts = {address_ - place(block, tensors[n]) for n in block.members if (address_ := _address(onto[n]))}
    return address if within and starts == {address} else None


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def overlap(starts: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether any two of the runs of bytes overlap."""
    begins, lengths = np.array(starts, np.int64), np.array(sizes, np.int64)
    order = np.argsort(begins)
    begins, ends = begins[order], (begins + lengths)[order]
    return bool((ends[:-1] > begins[1:]).any())
