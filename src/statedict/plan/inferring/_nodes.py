"""Modules and tensors as nodes: the tensors below a path, their number of elements, and their shapes without order."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from math import prod
from typing import NamedTuple

from ..operations._specs import Shape

_NUMBER = re.compile(r"\d+")


Numbers = tuple[int, ...]


class TensorBelow(NamedTuple):
    """A tensor below a module: its name from there, and its shape."""

    name: str
    shape: Shape


Entries = tuple[TensorBelow, ...]


class Node:
    """A module or a tensor at `path`; the names of `entries` begin there, and that of a tensor is empty."""

    def __init__(self, path: str, entries: Entries, place: int) -> None:
        self.path, self.entries, self.place = path, entries, place

    @property
    def is_tensor(self) -> bool:
        return not self.entries[0].name

    @cached_property
    def size(self) -> int:
        """The number of elements, which transposing, reshaping, joining and splitting do not change."""
        return sum(prod(entry.shape) for entry in self.entries)

    @cached_property
    def content(self) -> tuple[Shape, ...]:
        """The shapes, without the order of dimensions, the dimensions of size 1, and the order of tensors."""
        return tuple(sorted(bare_shape(entry.shape) for entry in self.entries))

    def exact(self, transposed: bool = False) -> tuple[tuple[int, ...], ...]:
        """Return the shapes without the order of tensors; `transposed` swaps the dimensions of matrices."""
        turned = (e.shape[::-1] if transposed and len(e.shape) == 2 else e.shape for e in self.entries)
        return tuple(sorted(turned))

    @cached_property
    def pattern(self) -> str:
        """The path with `#` for its numbers."""
        return pattern(self.path)

    @cached_property
    def numbers(self) -> Numbers:
        return numbers(self.path)

    def children(self) -> list[Node]:
        """Return the nodes below; a module with a single child is skipped, so that wrapping a module changes nothing."""
        return nodes(self.entries, self.path, self.place)


def pattern(path: str) -> str:
    """Return a path with `#` for each of its numbers."""
    return _NUMBER.sub("#", path)


def numbers(path: str) -> Numbers:
    """Return the numbers in a path."""
    return tuple(map(int, _NUMBER.findall(path)))


def nodes(entries: Entries, above: str = "", place: int = 0) -> list[Node]:
    """Return the modules and tensors directly below a path, in order."""
    found: dict[tuple[str, bool], list[TensorBelow]] = {}  # a tensor and a module may have the same name
    for entry in entries:
        head, _, rest = entry.name.partition(".")
        found.setdefault((head, bool(rest)), []).append(entry._replace(name=rest))
    made = []
    for (head, _), below in found.items():
        path = f"{above}.{head}" if above else head
        made.append(_collapsed(path, tuple(below), place))
        place += len(below)
    return made


def _collapsed(path: str, entries: Entries, place: int) -> Node:
    while entries[0].name and len({entry.name.partition(".")[0] for entry in entries}) == 1:
        path = f"{path}.{entries[0].name.partition('.')[0]}"
        entries = tuple(entry._replace(name=entry.name.partition(".")[2]) for entry in entries)
    return Node(path, entries, place)


def bare_shape(shape: Shape) -> Shape:
    """Return the dimensions other than 1, sorted."""
    return tuple(sorted(size for size in shape if size != 1))


def inventory(entries: Entries) -> Counter[Shape]:
    """Count the shapes of the matrices that are not square."""
    return Counter(e.shape for e in entries if len(e.shape) == 2 and e.shape[0] != e.shape[1])
