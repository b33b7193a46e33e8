"""Turn leaves into arrays in fresh memory: one block for many storages, instead of one allocation for each tensor.

A block lives as long as any array that views it. Ties are preserved: leaves of one storage become arrays over the same
bytes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, cast

from ...errors import FormatError
from ..casts._computed import COMPUTED
from ._expansion import require_in_proportion
from ._leaf import Leaf, Storage
from ._library import ArrayLibrary
from ._table import blocks, memory_of, rows_of
from ._values import Compound

# At most this many bytes are read although a mapping was requested, because they cannot be mapped.
UNMAPPED = 64 << 20


def materialize(
    leaves: Sequence[Leaf | Compound], library: ArrayLibrary, *, mapped: bool = False, verify: bool = True
) -> list[Any]:
    """Return arrays of `library` for the leaves, in order.

    `mapped` maps files copy-on-write instead of reading them, if the source can (then nothing is verified, because that
    reads every byte). `verify` is that of `Source.read_into`.
    """
    table = None if mapped else rows_of(leaves)
    if table is not None:
        memory = memory_of(table.read(verify=verify), table.sizes)
        return library.arrays(cast("Sequence[Leaf]", leaves), memory)
    # Views need no memory of their own, but what is computed from a view is as large as the view.
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
        # Sources that are files have a name; others (memory, computations) do not.
        sources = [part.storage.source for part in value.parts.values()]
        raise error.located(file=next((s.name for s in sources if hasattr(s, "name")), None)) from error.__cause__


def storages_in_memory(storages: dict[Hashable, Storage], *, mapped: bool, verify: bool) -> dict[Hashable, memoryview]:
    """Return the bytes of each storage in writable memory of this process, by key."""
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
    found = memory_of(blocks(wanted, [0] * len(wanted), sizes, verify=verify), sizes)
    return memory | {storage.key: view for storage, view in zip(wanted, found)}


def _check_mapped(unmapped: Sequence[Storage]) -> None:
    """Raise FormatError if much of a file would have to be read although the caller asked for a mapping."""
    # Sources that are files have a name.
    unmapped = [storage for storage in unmapped if hasattr(storage.source, "name")]
    nbytes = sum(storage.nbytes for storage in unmapped)
    if nbytes > UNMAPPED:
        raise FormatError(
            f"{nbytes:,} bytes of tensors cannot be mapped: they are compressed, in pieces, of the other byte order, or do "
            "not begin at a multiple of their elements' size",
            file=getattr(unmapped[0].source, "name", None),
            hint="load it without mmap, or save it again",
        )
