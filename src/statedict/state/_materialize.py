"""Leaves become arrays in fresh memory: one arena for many storages, instead of one allocation a tensor.

The arena lives as long as any array that views it. Ties stay ties: leaves of one storage become arrays over the same
bytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Hashable, Iterable, Sequence
from itertools import accumulate
from typing import Any, cast

from ..errors import FormatError
from ._computed import COMPUTED
from ._expansion import require_in_proportion
from ._leaf import Bulk, Leaf, Read, Source, Storage
from ._library import ArrayLibrary
from ._rows import many
from ._values import Compound

# Tensor libraries want aligned vectors, and 64 bytes is a cache line; PyTorch's own allocator and file format use it too.
ALIGNMENT = 64
# Huge pages halve the cost of first touch (fast-io measurements: 2.8 → 5.5 GB/s a thread); below this size they are none.
HUGE = 4 << 20
# What is read although a mapping was asked for, because it cannot be mapped.
UNMAPPED = 64 << 20


def materialize(
    leaves: Sequence[Leaf | Compound], library: ArrayLibrary, *, mapped: bool = False, verify: bool = True
) -> list[Any]:
    """Arrays of `library` for the leaves, in order.

    `mapped` maps files copy-on-write instead of reading them, where the source can (then nothing is verified: verifying
    reads every byte). `verify` is that of `Source.read_into`.
    """
    rows = None if mapped else many(leaves)
    if rows is not None:
        block, places = rows.table.fresh(rows.numbers, verify=verify)
        memory = [block[place : place + nbytes] for place, nbytes in zip(places, rows.sizes())]
        return library.arrays(cast("Sequence[Leaf]", leaves), memory)
    # A view stays one; what is computed from it is as large as what it shows.
    require_in_proportion(leaf for leaf in leaves if isinstance(leaf, Leaf) and leaf.storage.source is COMPUTED)
    strided = [leaf for value in leaves for leaf in ([value] if isinstance(value, Leaf) else value.parts.values())]
    storages = {leaf.storage.key: leaf.storage for leaf in strided}
    by_key = storages_in_memory(storages, mapped=mapped, verify=verify)
    arrays = iter(library.arrays(strided, [by_key[leaf.storage.key] for leaf in strided]))
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
    if mapped:
        _check_mapped(wanted)
    sizes = [storage.nbytes for storage in wanted]
    for some, block, places in blocks(wanted, [0] * len(wanted), sizes, verify=verify):
        for index, place in zip(some, places):
            memory[wanted[index].key] = block[place : place + sizes[index]]
    return memory


def _check_mapped(unmapped: Sequence[Storage]) -> None:
    """Raise FormatError if more of a file would be read than somebody expects who asked for a mapping."""
    # A Source that is a file can tell its name.
    unmapped = [storage for storage in unmapped if hasattr(storage.source, "name")]
    nbytes = sum(storage.nbytes for storage in unmapped)
    if nbytes > UNMAPPED:
        raise FormatError(
            f"{nbytes:,} bytes of tensors cannot be mapped: they are compressed, in pieces, of the other byte order, or do "
            "not begin at a multiple of their elements' size",
            file=getattr(unmapped[0].source, "name", None),
            hint="load it without mmap, or save it again",
        )


def blocks(
    storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int], *, verify: bool
) -> list[tuple[Sequence[int], memoryview, list[int]]]:
    """Bytes `start … start + size` of each storage in blocks of fresh writable memory, one for each source: which of the
    storages it holds, and where each begins in it, aligned."""
    if not storages:
        return []
    source = storages[0].source
    if all(storage.source is source for storage in storages):
        return [(range(len(storages)), *_block(source, storages, starts, sizes, verify))]
    groups: dict[int, list[int]] = {}
    for index, storage in enumerate(storages):
        groups.setdefault(id(storage.source), []).append(index)
    found: list[tuple[Sequence[int], memoryview, list[int]]] = []
    for some in groups.values():
        mine = [storages[n] for n in some]
        found.append((some, *_block(mine[0].source, mine, [starts[n] for n in some], [sizes[n] for n in some], verify)))
    return found


def _block(
    source: Source, storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int], verify: bool
) -> tuple[memoryview, list[int]]:
    found = source.fresh(storages, starts, sizes, verify=verify) if isinstance(source, Bulk) else None
    if found is not None:
        return found
    rooms = [-(-nbytes // ALIGNMENT) * ALIGNMENT for nbytes in sizes]
    block = arena(sum(rooms))
    places = [end - room for end, room in zip(accumulate(rooms), rooms)]
    views = [block[place : place + nbytes] for place, nbytes in zip(places, sizes)]
    source.read_into([Read(*each) for each in zip(storages, starts, views) if len(each[2])], verify=verify)
    return block, places


def by_source(storages: Iterable[Storage]) -> list[list[Storage]]:
    """The storages of each source together, as sources read in batches."""
    groups: dict[int, list[Storage]] = {}
    for storage in storages:
        groups.setdefault(id(storage.source), []).append(storage)
    return list(groups.values())


def arena(nbytes: int) -> memoryview:
    """Fresh zeroed writable memory, in huge pages where the system grants them."""
    if nbytes < HUGE:
        return memoryview(bytearray(nbytes))
    block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(block)
