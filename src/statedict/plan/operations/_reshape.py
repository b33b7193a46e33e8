"""The operation that reshapes a tensor, with its elements in the same (row-major) order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from statedict.state import Box, Leaf, Spec, computed, contiguous, region

from ._joins import plain


@dataclass(frozen=True)
class Reshape:
    """Reshape a tensor; one size may be -1, which is then computed from the others."""

    sizes: tuple[int, ...]

    def __str__(self) -> str:
        return " ".join(map(str, ("reshape", *self.sizes)))

    def specs(self, specs: Sequence[Spec], count: int) -> list[Spec]:
        return [contiguous(spec.dtype, self._shape(spec)) for spec in specs]

    def leaves(self, leaves: Sequence[Leaf], count: int) -> list[Leaf]:
        made = zip(leaves, self.specs([leaf.spec for leaf in leaves], count))
        return [
            computed(spec, [leaf], lambda array: array, plain(leaf), within=_within(leaf, spec)) for leaf, spec in made
        ]

    def _shape(self, spec: Spec) -> tuple[int, ...]:
        known = prod(size for size in self.sizes if size != -1)
        rest, over = divmod(spec.numel, known) if known else (0, spec.numel)
        shape = tuple(rest if size == -1 else size for size in self.sizes)
        if self.sizes.count(-1) > 1 or min(self.sizes, default=0) < -1 or over or prod(shape) != spec.numel:
            raise ValueError(f"'{self}' does not fit shape {list(spec.shape)}, which has {spec.numel:,} elements")
        return shape


def _within(leaf: Leaf, spec: Spec) -> Callable[[Box], Leaf] | None:
    """Return how to make a box of the result; None if the elements are not contiguous, so that all of them are needed."""
    if not leaf.spec.is_contiguous:
        return None
    return partial(region, Leaf(spec._replace(offset=leaf.spec.offset), leaf.storage, leaf.traits))
