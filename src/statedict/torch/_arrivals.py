"""Leaves go straight into the memory of a model's tensors: from a file, bytes move once.

A leaf whose elements lie as the tensor's do is read into the tensor's own memory, all of a source's in one call; the
others come by way of a buffer of bounded size. Checksums are settled before the first byte lands.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from statedict.state import Compound, Leaf, Read, Storage, materialize

from ._dtypes import DTYPES_OF_TORCH
from ._library import TORCH
from ._pairs import ORDINARY, copy_all

# What the buffer holds at once. One tensor that is larger is a batch of its own.
BUFFER = 64 << 20

Arrival = tuple[Any, Leaf | Compound]


def verify(leaves: Iterable[Leaf | Compound]) -> None:
    """Settle the checksums of all that the leaves lie in."""
    storages: dict[Any, Storage] = {}
    for leaf in leaves:
        for part in _parts(leaf):
            storages[part.storage.key] = part.storage
    _by_source(storages.values(), lambda source, some: source.verify(some), lambda storage: storage)


def arrive(arrivals: Sequence[Arrival]) -> None:
    """Fill each tensor with its leaf's elements, cast to the tensor's dtype."""
    direct = [_is_direct(tensor, leaf) for tensor, leaf in arrivals]
    reads = [
        Read(leaf.storage, leaf.spec.offset * leaf.spec.dtype.itemsize, memory_of(tensor))
        for (tensor, leaf), straight in zip(arrivals, direct)
        if straight and isinstance(leaf, Leaf) and leaf.spec.nbytes
    ]
    _by_source(reads, lambda source, some: source.read_into(some), lambda read: read.storage)
    torch.autograd.graph.increment_version([tensor for (tensor, _), straight in zip(arrivals, direct) if straight])
    for batch in _batches([arrival for arrival, straight in zip(arrivals, direct) if not straight]):
        arrays = materialize([leaf for _, leaf in batch], TORCH, verify=False)
        copy_all([tensor for tensor, _ in batch], arrays)


def nbytes_of(leaf: Leaf | Compound) -> int:
    """Bytes of the storages that the leaf lies in."""
    return sum(part.storage.nbytes for part in _parts(leaf))


def memory_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, writable. The tensor must outlive the view."""
    nbytes = tensor.numel() * tensor.itemsize
    return memoryview((ctypes.c_char * nbytes).from_address(tensor.data_ptr())).cast("B")


def _parts(leaf: Leaf | Compound) -> Iterable[Leaf]:
    return (leaf,) if isinstance(leaf, Leaf) else leaf.parts.values()


def _is_direct(tensor: Any, leaf: Leaf | Compound) -> bool:
    return (
        isinstance(leaf, Leaf)
        and type(tensor) in ORDINARY
        and tensor.is_cpu
        and DTYPES_OF_TORCH.get(tensor.dtype) is leaf.spec.dtype
        and not (leaf.traits.conj or leaf.traits.neg)
        and leaf.spec.is_contiguous
        and tensor.is_contiguous()
        and not (tensor.is_conj() or tensor.is_neg())
    )


def _by_source(items: Iterable[Any], act: Callable[[Any, list[Any]], None], storage: Callable[[Any], Storage]) -> None:
    groups: dict[int, list[Any]] = {}
    for item in items:
        groups.setdefault(id(storage(item).source), []).append(item)
    for some in groups.values():
        act(storage(some[0]).source, some)


def _batches(arrivals: Sequence[Arrival]) -> Iterable[list[Arrival]]:
    batch: list[Arrival] = []
    size = 0
    for tensor, leaf in arrivals:
        nbytes = nbytes_of(leaf)
        if batch and size + nbytes > BUFFER:
            yield batch
            batch, size = [], 0
        batch.append((tensor, leaf))
        size += nbytes
    if batch:
        yield batch
