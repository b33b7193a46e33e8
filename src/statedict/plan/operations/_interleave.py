"""The operations that interleave the two halves of a dimension, and take them apart again, as rotary embeddings need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from statedict.state import Box, Leaf, Spec, computed, contiguous, region

from ._joins import plain
from ._views import dimension

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Interleave:
    """In each group of `group` entries along `dim` (0: all of them): a0 a1 … b0 b1 … becomes a0 b0 a1 b1 …

    `apart` is the inverse: the even entries of a group first, then the odd ones.
    """

    dim: int
    group: int = 0
    apart: bool = False

    def __str__(self) -> str:
        numbers = [self.dim, self.group] if self.group else [self.dim]
        return " ".join(map(str, ["deinterleave" if self.apart else "interleave", *numbers]))

    def specs(self, specs: Sequence[Spec], count: int) -> list[Spec]:
        return [self._spec(spec) for spec in specs]

    def leaves(self, leaves: Sequence[Leaf], count: int) -> list[Leaf]:
        return [
            computed(self._spec(leaf.spec), [leaf], self._moved, plain(leaf), within=partial(self._within, leaf))
            for leaf in leaves
        ]

    def _spec(self, spec: Spec) -> Spec:
        dim = dimension(spec, self.dim, self)
        group = self.group or spec.shape[dim]
        if group < 0 or group % 2 or spec.shape[dim] % (group or 1):
            raise ValueError(
                f"'{self}' does not fit shape {list(spec.shape)}: dimension {dim} does not consist of groups of "
                f"{group:,} entries, or that number is odd"
            )
        return contiguous(spec.dtype, spec.shape)

    def _within(self, leaf: Leaf, box: Box) -> Leaf:
        """Return a box of the result, made from the groups that it overlaps with."""
        dim = self.dim % len(box.sizes)
        group = self.group or leaf.spec.shape[dim]
        first, start = divmod(box.offsets[dim], group)
        size = -(-(start + box.sizes[dim]) // group) * group
        part = region(leaf, Box(_put(box.offsets, dim, first * group), _put(box.sizes, dim, size)))
        cut = (*[slice(None)] * dim, slice(start, start + box.sizes[dim]))
        return computed(
            contiguous(leaf.spec.dtype, box.sizes),
            [part],
            lambda array: self._moved(array).reshape(array.shape)[cut],
            plain(leaf),
        )

    def _moved(self, array: Any) -> np.ndarray[Any, Any]:
        """Return a view of the elements in their new order, with three dimensions in the place of `dim`."""
        dim, shape = self.dim % array.ndim, array.shape
        group = self.group or shape[dim]
        pairs = (group // 2, 2) if self.apart else (2, group // 2)
        grouped = array.reshape(*shape[:dim], shape[dim] // (group or 1), *pairs, *shape[dim + 1 :])
        moved: np.ndarray[Any, Any] = grouped.swapaxes(dim + 1, dim + 2)
        return moved


def _put(row: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    """Return the tuple with another entry at `place`."""
    return (*row[:place], value, *row[place + 1 :])
