"""Collect the facts and measures of a state's tensors for the page.

Each tensor is read once, in pieces; tied tensors are read once together. So this needs the memory of one piece and of the
results.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, NamedTuple

from statedict.state import Absent, Leaf, StateDict, pieces, require_in_proportion

from ._facts import Fact, tensors, values
from ._measures import PIECE, Heat, Histogram, Moments, matrix, step, widened
from ._optimizers import parameter_labels

# Bytes of all heat maps of a page, so that the charting library is the largest part of a page.
BUDGET = 2 << 20
SMALLEST, LARGEST = 12, 96


class Measures(NamedTuple):
    """Measures of the elements of one tensor: the values of `statistics`, their histogram, and the heat map of a matrix."""

    stats: dict[str, float | int | None]
    histogram: Histogram
    heat: Heat | None


class SurveyResult(NamedTuple):
    """The content of a page for one state dict: a fact and the measures of each tensor (None if it was not read), the
    entries that are not tensors, and the names to show instead of those in the file."""

    tensors: list[Fact]
    measures: list[Measures | None]
    values: list[Fact]
    labels: dict[str, str]


def survey(state: StateDict, *, read: bool = True, budget: int = BUDGET) -> SurveyResult:
    """Collect the facts of every tensor of a state, and with `read` the measures of its elements.

    `budget`: the bytes for all heat maps of the state; a minimum size keeps them recognisable.

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
            if leaf.identity not in known:
                known[leaf.identity] = measure(leaf, side)
            found.append(known[leaf.identity])
        else:
            found.append(None)
    return SurveyResult(facts, found, values(state, lambda name: True), parameter_labels(state))


def resolution(shapes: Sequence[Sequence[int]], budget: int) -> int:
    """Return the number of cells on each side of a heat map, so that all of them fit into the budget.

    >>> resolution([(512, 512)] * 400, 2 << 20), resolution([(512, 512)] * 100_000, 2 << 20)
    (72, 12)
    """
    drawn = sum(1 for shape in shapes if matrix(shape))
    return min(max(isqrt(budget // max(drawn, 1)), SMALLEST), LARGEST)


def measure(leaf: Leaf, side: int) -> Measures:
    """Read one tensor, once, and measure its elements."""
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
    return Measures(moments.values(), histogram, heat)
