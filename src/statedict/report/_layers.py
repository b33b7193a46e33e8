"""How much each layer of a network changed: the changes of its tensors taken together.

A layer is a module: tensors whose names differ only behind the last dot. Its change is that of one long vector made of all
its elements, so that a bias that doubled does not hide a matrix that stayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, sqrt
from typing import TYPE_CHECKING, NamedTuple

from ._survey import Measures

if TYPE_CHECKING:
    from statedict.plan import Diff


class Layer(NamedTuple):
    """One layer of two states.

    Attributes:
        name: of the module; empty for tensors that are in none.
        relative: the norm of the difference over the norm before; infinite where that was zero.
        changed, compared: tensors that differ, and all that could be compared.
    """

    name: str
    relative: float
    changed: int
    compared: int


def layers(diff: Diff, before: Mapping[str, Measures | None]) -> list[Layer]:
    """Each layer's change, in the order of the names. `before`: what the first state's tensors are like, by the second's
    names; those that the two states have in common and that have equal shapes count."""
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for name, measures in before.items():
        if measures is not None and name not in diff.shape and name not in diff.removed:
            change = diff.changed.get(name)
            norm = _norm(measures)
            found.setdefault(name.rpartition(".")[0], []).append(
                (change.relative if change else 0.0, norm, bool(change))
            )
    return [Layer(name, _joined(parts), sum(part[2] for part in parts), len(parts)) for name, parts in found.items()]


def _joined(parts: Iterable[tuple[float, float, bool]]) -> float:
    """The relative change of several vectors as one."""
    parts = list(parts)
    if any(relative == inf for relative, _, _ in parts):
        return inf  # from zero: its size was not kept
    apart = sqrt(sum((relative * norm) ** 2 for relative, norm, _ in parts))
    whole = sqrt(sum(norm**2 for _, norm, _ in parts))
    return apart / whole if whole else 0.0


def _norm(measures: Measures) -> float:
    """The Euclidean norm of the finite elements, from their number, mean and spread."""
    mean, std = measures.stats["mean"], measures.stats["std"]
    return 0.0 if mean is None or std is None else sqrt(sum(measures.histogram.counts) * (mean**2 + std**2))
