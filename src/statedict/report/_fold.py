"""Fold names into a tree over repeated layers: from names, kinds and sizes to the rows to print.

Siblings whose names differ only in their last number, and whose contents are equal (names and kinds), share a row:
`layers.{0…11}`. Sizes are totals of a row. The time is linear in the number of names: the signature of a subtree is one
interned number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from statedict.state import spans

# After this many dots, the rest of a name is one label, so that a hostile name of 10,000 dots cannot cause deep recursion.
DEEPEST = 50
NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,17})", re.DOTALL)


class Row(NamedTuple):
    """One row of the tree, for `times` equal tensors or modules; `which`: the indices of the tensors, empty for modules."""

    depth: int
    label: str
    times: int
    nbytes: int
    which: tuple[int, ...]


class _Node:
    """A module, a tensor (of index `which`), or both; equal subtrees have equal signatures."""

    __slots__ = ("children", "nbytes", "signature", "which")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.which: int | None = None
        self.nbytes = 0
        self.signature = -1


def fold(names: Iterable[str], kinds: Sequence[Hashable], sizes: Sequence[int]) -> list[Row]:
    """Return the rows of the folded tree, in the order of the names; tensors of different `kinds` do not share a row.

    >>> names = [f"layers.{i}.{leaf}" for i in range(12) for leaf in ("weight", "bias")]
    >>> [row[:4] for row in fold(names, ["float32"] * 24, [4] * 24)]
    [(0, 'layers.{0…11}', 12, 96), (1, 'weight', 12, 48), (1, 'bias', 12, 48)]
    """
    root = _Node()
    for which, name in enumerate(names):
        node = root
        for part in name.split(".", DEEPEST):
            children = node.children
            below = children.get(part)
            if below is None:
                below = children[part] = _Node()
            node = below
        node.which, node.nbytes = which, sizes[which]
    _sign(root, kinds, {})
    rows: list[Row] = []
    for label, nodes in _groups([root]):
        _add_rows(rows, label, nodes, 0)
    return rows


def _sign(node: _Node, kinds: Sequence[Hashable], known: dict[Hashable, int]) -> None:
    """Set the signature of the node and all nodes below it, and add up their bytes."""
    children = node.children.values()
    for child in children:
        _sign(child, kinds, known)
        node.nbytes += child.nbytes
    own = None if node.which is None else (kinds[node.which],)
    content = (own, *node.children, *[child.signature for child in children]) if children else own
    node.signature = known.setdefault(content, len(known))


def _groups(nodes: list[_Node]) -> list[tuple[str, list[_Node]]]:
    """Return the children of equal nodes in groups: a label, and the equal children with this label."""
    if len(nodes[0].children) < 2:
        return [(label, [node.children[label] for node in nodes]) for label in nodes[0].children]
    groups = []
    found: dict[Hashable, list[str]] = {}
    for label, child in nodes[0].children.items():
        numbered = NUMBERED.fullmatch(label)
        found.setdefault((numbered[1], child.signature) if numbered else label, []).append(label)
    for labels in found.values():
        shown = labels[0]
        if len(labels) > 1:
            stem = shown[: len(shown) - len(NUMBERED.fullmatch(shown)[2])]  # type: ignore[index]  # as it was keyed
            shown = f"{stem}{{{spans(sorted(int(label[len(stem) :]) for label in labels))}}}"
        groups.append((shown, [node.children[label] for node in nodes for label in labels]))
    return groups


def _add_rows(rows: list[Row], label: str, nodes: list[_Node], depth: int) -> None:
    """Add the rows of one group of equal nodes; a module with only one child shares its row."""
    below = _groups(nodes)
    while nodes[0].which is None and len(below) == 1:
        inner, nodes = below[0]
        label, below = f"{label}.{inner}", _groups(nodes)
    which = tuple(node.which for node in nodes if node.which is not None)
    rows.append(Row(depth, label, len(nodes), sum([node.nbytes for node in nodes]), which))
    for inner, group in below:
        _add_rows(rows, inner, group, depth + 1)
