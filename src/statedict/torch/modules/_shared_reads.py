"""Which bytes of its files every rank of a joint load reads, so that the ranks verify checksums together.

A rank knows the boxes of all others: the mesh and the placements tell them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from statedict.errors import LoadError, PartError
from statedict.state import Box, Compound, Leaf, Storage, narrowed, origins, whole_box
from statedict.tree import Rules, Slots

from ..tensors._dtensor import coordinates_of, is_sharded, local_boxes

Ranges = list[list[tuple[int, int]]]


def share_reads(slots: Slots, rules: Rules) -> None:
    """Verify the values of these slots together with the other ranks of a joint load; called before any is read.

    A slot that the ranks cannot agree about is left out: each rank verifies what it reads of its value by itself.
    """
    if rules.together is not None and rules.verify:
        rules.together.share(_reads(slots, rules.together.ranks))


def _reads(slots: Slots, ranks: Sequence[int]) -> Iterator[tuple[Storage, Ranges]]:
    known: dict[Any, list[list[Box]]] = {}
    for current, value in zip(slots.current, slots.values):
        if not is_sharded(current) and isinstance(value, (Leaf, Compound)):
            parts = [value] if isinstance(value, Leaf) else value.parts.values()
            each = [[(part, whole_box(part.spec.shape)) for part in parts]] * len(ranks)
        elif isinstance(value, Leaf) and value.spec.shape == tuple(current.shape):
            layout = current.device_mesh, current.placements, value.spec.shape
            if layout not in known:
                known[layout] = _boxes_of_all(current, ranks)
            each = [[(value, box) for box in boxes] for boxes in known[layout]]
        else:
            continue
        with suppress(PartError, TypeError, ValueError):
            yield from _of_slot(each)


def _boxes_of_all(tensor: Any, ranks: Sequence[int]) -> list[list[Box]]:
    """Return the boxes that each rank has of a DTensor; an empty list if they are not known."""
    places = coordinates_of(tensor.device_mesh)
    # A rank that holds a part of a larger mesh knows only the ranks of that part.
    if not places.keys() >= set(ranks):
        return []
    try:
        return [[found.whole for found in local_boxes(tensor, places[rank])] for rank in ranks]
    except LoadError:
        return []


def _of_slot(each: Sequence[Iterable[tuple[Leaf, Box]]]) -> Iterable[tuple[Storage, Ranges]]:
    """Return the storages that the ranks read parts of, from the boxes of each rank."""
    found: dict[Any, tuple[Storage, Ranges]] = {}
    for number, boxes in enumerate(each):
        for leaf, box in boxes:
            for storage, start, stop in origins(Leaf(narrowed(leaf.spec, box), leaf.storage)):
                _, ranges = found.setdefault(storage.key, (storage, [[] for _ in each]))
                ranges[number].append((start, stop))
    return list(found.values())
