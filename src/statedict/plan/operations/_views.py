"""Operations whose results are views of the same storage: permute, split, squeeze … They read no tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from statedict.state import Leaf, Spec


class View:
    """The base class of operations whose results are views of the same storage."""

    def specs(self, specs: Sequence[Spec], count: int) -> list[Spec]:
        return [view for spec in specs for view in self.views(spec, count)]

    def leaves(self, leaves: Sequence[Leaf], count: int) -> list[Leaf]:
        return [Leaf(view, leaf.storage, leaf.traits) for leaf in leaves for view in self.views(leaf.spec, count)]

    def views(self, spec: Spec, count: int) -> list[Spec]:
        raise NotImplementedError


@dataclass(frozen=True)
class Permute(View):
    """Reorder the dimensions."""

    dims: tuple[int, ...]

    def __str__(self) -> str:
        return f"permute {' '.join(map(str, self.dims))}"

    def views(self, spec: Spec, count: int) -> list[Spec]:
        if sorted(self.dims) != list(range(len(spec.shape))):
            raise ValueError(f"'{self}' does not fit shape {list(spec.shape)}: it must list each dimension once")
        shape, strides = (tuple(row[dim] for dim in self.dims) for row in (spec.shape, spec.strides))
        return [spec._replace(shape=shape, strides=strides)]


@dataclass(frozen=True)
class Transpose(View):
    """Swap two dimensions, by default those of a matrix."""

    dims: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join(["transpose", *map(str, self.dims)])

    def views(self, spec: Spec, count: int) -> list[Spec]:
        if not self.dims and len(spec.shape) != 2:
            raise ValueError(f"'transpose' does not fit shape {list(spec.shape)}: give the two dimensions to swap")
        first, second = (dimension(spec, dim, self) for dim in self.dims or (0, 1))
        order = list(range(len(spec.shape)))
        order[first], order[second] = second, first
        return Permute(tuple(order)).views(spec, count)


@dataclass(frozen=True)
class Split(View):
    """Split a tensor along a dimension: into parts of these sizes, or into equal parts."""

    dim: int
    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, ["split", self.dim, *self.sizes]))

    def views(self, spec: Spec, count: int) -> list[Spec]:
        dim = dimension(spec, self.dim, self)
        whole = spec.shape[dim]
        sizes = self.sizes or (whole // count,) * count
        if len(sizes) != count or sum(sizes) != whole or min(sizes) < 0:
            raise ValueError(f"'{self}' does not split shape {list(spec.shape)} into {count} tensors")
        starts = [sum(sizes[:n]) for n in range(count)]
        return [_part(spec, dim, start, size) for start, size in zip(starts, sizes)]


@dataclass(frozen=True)
class Unstack(View):
    """Split a tensor into its slices along a dimension."""

    dim: int

    def __str__(self) -> str:
        return f"unstack {self.dim}"

    def views(self, spec: Spec, count: int) -> list[Spec]:
        dim = dimension(spec, self.dim, self)
        if spec.shape[dim] != count:
            raise ValueError(f"'{self}' does not split shape {list(spec.shape)} into {count} tensors")
        parts = [_part(spec, dim, n, 1) for n in range(count)]
        return [p._replace(shape=without(p.shape, dim), strides=without(p.strides, dim)) for p in parts]


@dataclass(frozen=True)
class Squeeze(View):
    """Remove a dimension of size 1."""

    dim: int

    def __str__(self) -> str:
        return f"squeeze {self.dim}"

    def views(self, spec: Spec, count: int) -> list[Spec]:
        dim = dimension(spec, self.dim, self)
        if spec.shape[dim] != 1:
            raise ValueError(f"'{self}' does not fit shape {list(spec.shape)}: the size of dimension {dim} is not 1")
        return [spec._replace(shape=without(spec.shape, dim), strides=without(spec.strides, dim))]


@dataclass(frozen=True)
class Unsqueeze(View):
    """Insert a dimension of size 1."""

    dim: int

    def __str__(self) -> str:
        return f"unsqueeze {self.dim}"

    def views(self, spec: Spec, count: int) -> list[Spec]:
        dims = len(spec.shape) + 1
        if not -dims <= self.dim < dims:
            raise ValueError(f"'{self}' does not fit shape {list(spec.shape)}")
        dim = self.dim % dims
        shape, strides = ((*row[:dim], 1, *row[dim:]) for row in (spec.shape, spec.strides))
        return [spec._replace(shape=shape, strides=strides)]


def dimension(spec: Spec, dim: int, operation: object) -> int:
    """Return `dim` as a non-negative index; raises ValueError if the tensor does not have this dimension."""
    if not -len(spec.shape) <= dim < len(spec.shape):
        raise ValueError(f"'{operation}' does not fit shape {list(spec.shape)}: it has no dimension {dim}")
    return dim % len(spec.shape)


def without(row: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """Return the tuple without its entry at `dim`."""
    return row[:dim] + row[dim + 1 :]


def _part(spec: Spec, dim: int, start: int, size: int) -> Spec:
    shape = (*spec.shape[:dim], size, *spec.shape[dim + 1 :])
    return spec._replace(shape=shape, offset=spec.offset + start * spec.strides[dim])
