"""Operations that join several tensors into one when it is read: cat and stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from statedict.state import Box, Leaf, Spec, Traits, computed, contiguous, region

from ._views import dimension, without

if TYPE_CHECKING:
    import numpy as np


class Join:
    """The base class of operations that join several tensors into one when it is read."""

    def specs(self, specs: Sequence[Spec], count: int) -> list[Spec]:
        return [self.joined(specs)]

    def leaves(self, leaves: Sequence[Leaf], count: int) -> list[Leaf]:
        return [self._of(self.joined([leaf.spec for leaf in leaves]), leaves, plain(leaves[0]))]

    def _of(self, spec: Spec, leaves: Sequence[Leaf], traits: Traits) -> Leaf:
        within = partial(self._within, spec, leaves, traits)
        return computed(spec, leaves, self.arrays, traits, within=within)

    def _within(self, spec: Spec, leaves: Sequence[Leaf], traits: Traits, box: Box) -> Leaf:
        """Return a box of the result, joined from the boxes of the inputs that overlap with it."""
        parts = [region(leaf, of_leaf) for leaf, of_leaf in zip(leaves, self.boxes(leaves, box)) if of_leaf]
        return self._of(contiguous(spec.dtype, box.sizes), parts, traits)

    def boxes(self, leaves: Sequence[Leaf], box: Box) -> list[Box | None]:
        """Return the box of each input that overlaps with `box` of the result; None where there is no overlap."""
        raise NotImplementedError

    def joined(self, specs: Sequence[Spec]) -> Spec:
        raise NotImplementedError

    def arrays(self, *arrays: Any) -> np.ndarray[Any, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Cat(Join):
    """Concatenate tensors along a dimension: of these sizes, or all of the same size."""

    dim: int
    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, ["cat", self.dim, *self.sizes]))

    def joined(self, specs: Sequence[Spec]) -> Spec:
        dim = dimension(specs[0], self.dim, self)
        sizes = tuple(spec.shape[dim] for spec in specs if len(spec.shape) > dim)
        shapes = {without(spec.shape, dim) for spec in specs} | {spec.dtype for spec in specs}
        if len(shapes) > 2 or len(sizes) != len(specs):
            raise ValueError(f"'{self}' does not fit tensors {_listed(specs)}")
        if sizes != (self.sizes or sizes[:1] * len(sizes)):
            asked = f"{' '.join(map(str, sizes))}"
            raise ValueError(
                f"'{self}' joins parts of {'the same size' if not self.sizes else 'other sizes'}, not {_listed(specs)}; "
                f"write 'cat {self.dim} {asked}', so that the rule can be inverted"
            )
        shape = specs[0].shape
        return contiguous(specs[0].dtype, (*shape[:dim], sum(sizes), *shape[dim + 1 :]))

    def boxes(self, leaves: Sequence[Leaf], box: Box) -> list[Box | None]:
        dim = self.dim % len(box.sizes)
        before, after = (0,) * dim, (0,) * (len(box.sizes) - dim - 1)
        starts = accumulate((leaf.spec.shape[dim] for leaf in leaves), initial=0)
        return [box.within(Box((*before, start, *after), leaf.spec.shape)) for start, leaf in zip(starts, leaves)]

    def arrays(self, *arrays: Any) -> np.ndarray[Any, Any]:
        import numpy as np

        return np.concatenate(arrays, self.dim)


@dataclass(frozen=True)
class Stack(Join):
    """Stack tensors of the same shape along a new dimension."""

    dim: int

    def __str__(self) -> str:
        return f"stack {self.dim}"

    def joined(self, specs: Sequence[Spec]) -> Spec:
        shape = specs[0].shape
        if len({(spec.shape, spec.dtype) for spec in specs}) > 1 or not 0 <= self.dim <= len(shape):
            raise ValueError(f"'{self}' does not fit tensors {_listed(specs)}")
        return contiguous(specs[0].dtype, (*shape[: self.dim], len(specs), *shape[self.dim :]))

    def boxes(self, leaves: Sequence[Leaf], box: Box) -> list[Box | None]:
        first, count = box.offsets[self.dim], box.sizes[self.dim]
        inside = Box(without(box.offsets, self.dim), without(box.sizes, self.dim))
        return [inside if first <= number < first + count else None for number in range(len(leaves))]

    def arrays(self, *arrays: Any) -> np.ndarray[Any, Any]:
        import numpy as np

        return np.stack(arrays, self.dim)


def plain(leaf: Leaf) -> Traits:
    """Return the traits of a tensor computed from this one: its lazy bits are applied, and it is not a subclass."""
    return Traits(parameter=leaf.traits.parameter, requires_grad=leaf.traits.requires_grad)


def _listed(specs: Sequence[Spec]) -> str:
    shown = [f"{spec.dtype} {list(spec.shape)}" for spec in specs[:6]]
    return ", ".join(shown) + ("…" * (len(specs) > 6))
