"""A state looked at for the page: facts of every tensor, and, where its elements are read, what they are like.

Each tensor is read once, in pieces; tied tensors once together. So this takes the memory of one piece and of what it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, NamedTuple

from statedict.state import Absent, Leaf, StateDict, pieces, require_in_proportion

from ._facts import Fact, tensors, values
from ._heat import Heat, matrix, step
from ._histogram import Histogram
from ._statistics import PIECE, Moments, widened

# Bytes of all heat maps of a page. What a page weighs is then mostly the charting library.
BUDGET = 2 << 20
SMALLEST, LARGEST = 12, 96


class Measures(NamedTuple):
    """What the elements of one tensor are like: statistics as `statistics` gives them, their histogram, and the heat map of
    a matrix."""

    stats: dict[str, float | int | None]
    histogram: Histogram
    heat: Heat | None


class Survey(NamedTuple):
    """All that a page tells of one state dict: a fact and the measures of each tensor (None where they were not taken, or
    cannot be), and the entries that are no tensors."""

    tensors: list[Fact]
    measures: list[Measures | None]
    values: list[Fact]


def survey(state: StateDict, *, read: bool = True, budget: int = BUDGET) -> Survey:
    """Look at every tensor of a state; `read` their elements too, or know the headers only.

    `budget`: bytes that the heat maps of the state may take on the page, as far as they stay recognisable.

    >>> import numpy as np
    >>> found = survey(StateDict({"w": np.eye(3), "step": 7}))
    >>> found.tensors[0]["shape"], found.measures[0].stats["zeros"], found.values[0]["value"]
    ([3, 3], 6, 7)
    """
    facts = tensors(state)
    if read:
        require_in_proportion(leaf for _, leaf in state.leaves())
    side = resolution([fact["shape"] for fact in facts], budget)
    known: dict[Any, Measures] = {}
    found: list[Measures | None] = []
    for fact in facts:
        leaf = state.leaf(fact["name"])
        if read and isinstance(leaf, Leaf) and not isinstance(leaf, Absent):
            if leaf.shown not in known:
                known[leaf.shown] = measure(leaf, side)
            found.append(known[leaf.shown])
        else:
            found.append(None)
    return Survey(facts, found, values(state, lambda name: True))


def resolution(shapes: Sequence[Sequence[int]], budget: int) -> int:
    """Cells on a side of each heat map, so that all of them together keep to the budget.

    >>> resolution([(512, 512)] * 400, 2 << 20), resolution([(512, 512)] * 100_000, 2 << 20)
    (72, 12)
    """
    drawn = sum(1 for shape in shapes if matrix(shape))
    return min(max(isqrt(budget // max(drawn, 1)), SMALLEST), LARGEST)


def measure(leaf: Leaf, side: int) -> Measures:
    """Read one tensor, once, and tell what its elements are like."""
    kind = leaf.spec.dtype
    moments, histogram = Moments(), Histogram(whole=not (kind.is_floating or kind.is_complex))
    sizes = matrix(leaf.spec.shape)
    heat = Heat(*sizes, side) if sizes else None
    for piece in pieces(leaf, step(sizes[1]) if sizes else PIECE):
        part, finite = widened(piece)
        moments.add(part, finite)
        histogram.add(finite)
        if heat:
            heat.add(part)
    histogram.settle()
    return Measures(moments.told(), histogram, heat)
