"""Leaves become arrays in fresh memory: one arena for many storages, instead of one allocation a tensor.

The arena lives as long as any array that views it. Ties stay ties: leaves of one storage become arrays over the same
bytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import repeat
from typing import Any, TypeVar

from ..errors import FormatError
from ._leaf import Bulk, Leaf, Read, Storage
from ._library import ArrayLibrary
from ._values import Compound

T = TypeVar("T")
# Tensor libraries want aligned vectors, and 64 bytes is a cache line; PyTorch's own allocator and file format use it too.
ALIGNMENT = 64
# Huge pages halve the cost of first touch (fast-io measurements: 2.8 → 5.5 GB/s a thread); below this size they are none.
HUGE = 4 << 20


def materialize(
    leaves: Sequence[Leaf | Compound], library: ArrayLibrary, *, mapped: bool = False, verify: bool = True
) -> list[Any]:
    """Arrays of `library` for the leaves, in order.

    `mapped` maps files copy-on-write instead of reading them, where the source can (then nothing is verified: verifying
    reads every byte). `verify` checks checksums before any array is made.
    """
    strided = [leaf for value in leaves for leaf in ([value] if isinstance(value, Leaf) else value.parts.values())]
    memory = storages_in_memory({leaf.storage.key: leaf.storage for leaf in strided}, mapped=mapped, verify=verify)
    arrays = iter(library.arrays(strided, [memory[leaf.storage.key] for leaf in strided]))
    return [
        next(arrays)
        if isinstance(value, Leaf)
        else _compound(library, value, {role: next(arrays) for role in value.parts})
        for value in leaves
    ]


def _compound(library: ArrayLibrary, value: Compound, parts: dict[str, Any]) -> Any:
    try:
        return library.compound(value, parts)
    except FormatError as error:
        # A Source that is a file can tell its name; others (memory, computations) have none.
        sources = [part.storage.source for part in value.parts.values()]
        raise error.located(file=next((s.name for s in sources if hasattr(s, "name")), None)) from error.__cause__


def storages_in_memory(storages: dict[Hashable, Storage], *, mapped: bool, verify: bool) -> dict[Hashable, memoryview]:
    """The bytes of each storage in writable memory of this process, by key."""
    memory: dict[Hashable, memoryview] = {}
    wanted: list[Storage] = []
    for key, storage in storages.items():
        view = storage.source.view(storage, writable=True) if mapped else None
        if view is None:
            wanted.append(storage)
        else:
            memory[key] = view
    groups = by_source(wanted, lambda storage: storage)
    if verify:
        for some in groups:
            some[0].source.verify(some)
    others: list[Storage] = []
    for some in groups:
        source = some[0].source
        for storage, view in zip(some, source.fresh(some) if isinstance(source, Bulk) else repeat(None)):
            if view is None:
                others.append(storage)
            else:
                memory[storage.key] = view
    _read(others, memory)
    return memory


def _read(storages: Sequence[Storage], memory: dict[Hashable, memoryview]) -> None:
    """Read storages, each into its place in one block."""
    places: list[int] = []
    total = 0
    for storage in storages:
        places.append(total)
        total += -(-storage.nbytes // ALIGNMENT) * ALIGNMENT
    block = arena(total)
    for storage, place in zip(storages, places):
        memory[storage.key] = block[place : place + storage.nbytes]
    for some in by_source(storages, lambda storage: storage):
        some[0].source.read_into([Read(s, 0, memory[s.key]) for s in some if s.nbytes])


def by_source(items: Iterable[T], storage: Callable[[T], Storage]) -> list[list[T]]:
    """The items of each source together, as sources read in batches."""
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(id(storage(item).source), []).append(item)
    return list(groups.values())


def arena(nbytes: int) -> memoryview:
    """Fresh zeroed writable memory, in huge pages where the system grants them."""
    if nbytes < HUGE:
        return memoryview(bytearray(nbytes))
    block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(block)
