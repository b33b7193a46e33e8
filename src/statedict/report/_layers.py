"""How much each layer of a network changed: the changes of its tensors combined.

A layer is a module: tensors whose names differ only after the last dot. Its change is that of one vector of all its
elements, so that a bias that has doubled does not hide a matrix that has not changed.
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
        name: the name of the module; empty for tensors at the root.
        relative: the norm of the difference divided by the norm before; infinite if that was zero.
        changed, compared: the number of tensors that differ, and of all that could be compared.
    """

    name: str
    relative: float
    changed: int
    compared: int


def layers(diff: Diff, before: Mapping[str, Measures | None]) -> list[Layer]:
    """Return each layer's change, in the order of the names.

    `before`: measures of the first state's tensors, by the second's names. Only tensors that both states have, with equal
    shapes, are compared.
    """
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
    """Return the relative change of several vectors combined."""
    parts = list(parts)
    if any(relative == inf for relative, _, _ in parts):
        return inf  # the norm before was zero, and that of the difference is not known
    apart = sqrt(sum((relative * norm) ** 2 for relative, norm, _ in parts))
    whole = sqrt(sum(norm**2 for _, norm, _ in parts))
    return apart / whole if whole else 0.0


def _norm(measures: Measures) -> float:
    """Return the Euclidean norm of the finite elements, from their number, mean and standard deviation."""
    mean, std = measures.stats["mean"], measures.stats["std"]
    return 0.0 if mean is None or std is None else sqrt(sum(measures.histogram.counts) * (mean**2 + std**2))
