"""Pair names inside two corresponding modules by their order and shape only.

The children of both modules are compared by the names and shapes below them, then by the shapes only. Children with the same
shapes are paired in order if both sides have the same number of them. The remaining children are opened and compared in the
same way. If the numbers differ, nothing is paired: that would be a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

from .operations._specs import Shape

Shapes = Mapping[str, Shape | None]


class Node(NamedTuple):
    """A module, or a tensor, with the names below it in order."""

    path: str
    names: tuple[str, ...]

    def children(self) -> list[Node]:
        """Return the nodes one level down; a tensor returns itself."""
        found: dict[str, list[str]] = {}
        start = len(self.path) + 1 if self.path else 0
        for name in self.names:
            path = self.path if name == self.path else name[: start + len(name[start:].partition(".")[0])]
            found.setdefault(path, []).append(name)
        return [Node(path, tuple(names)) for path, names in found.items()]


def pair_in_order(source: Node, target: Node, source_shapes: Shapes, target_shapes: Shapes) -> list[tuple[str, str]]:
    """Pair names of the source with names of the target by order and shape."""
    left, right = source.children(), target.children()
    pairs: list[tuple[str, str]] = []
    while left and right:
        for relative in (True, False):
            alike = _alike(left, right, _kind(source_shapes, relative), _kind(target_shapes, relative))
            pairs += [names for a, b in alike for names in zip(a.names, b.names)]
            done = {a.path for a, _ in alike}, {b.path for _, b in alike}
            left = [node for node in left if node.path not in done[0]]
            right = [node for node in right if node.path not in done[1]]
        opened = [[child for node in side for child in node.children()] for side in (left, right)]
        if len(opened[0]) == len(left) and len(opened[1]) == len(right):
            break
        left, right = opened
    return pairs


def _kind(shapes: Shapes, relative: bool) -> Callable[[Node], Hashable]:
    """Return the key by which nodes are compared: the shapes below them, in order, and with `relative` the names as well."""
    if relative:
        return lambda node: tuple((_beneath(name, node.path), shapes[name]) for name in node.names)
    return lambda node: tuple(shapes[name] for name in node.names)


def _beneath(name: str, path: str) -> str:
    """Return the name relative to the node, or its last component if it is the node itself."""
    return name[len(path) + 1 :] or path.rpartition(".")[2]


def _alike(
    left: Sequence[Node], right: Sequence[Node], kind: Callable[[Node], Hashable], other: Callable[[Node], Hashable]
) -> list[tuple[Node, Node]]:
    """Pair, in order, the nodes of each kind that both sides have equally often."""
    kinds: dict[Hashable, tuple[list[Node], list[Node]]] = {}
    for node in left:
        kinds.setdefault(kind(node), ([], []))[0].append(node)
    for node in right:
        kinds.setdefault(other(node), ([], []))[1].append(node)
    return [pair for a, b in kinds.values() if len(a) == len(b) for pair in zip(a, b)]
