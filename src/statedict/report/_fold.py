"""Fold names into a tree over repeated layers: from a list of entries to the rows to print.

Siblings whose names differ only in their last number, and whose contents are equal (names, dtypes, shapes), share a row:
`layers.{0…11}`. Sizes are totals of a row. The time is linear in the number of names: the signature of a subtree is one
interned number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from statedict.state import spans

# After this many dots, the rest of a name is one label, so that a hostile name of 10,000 dots cannot cause deep recursion.
DEEPEST = 50
NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,17})", re.DOTALL)


class TreeEntry(NamedTuple):
    """One named tensor: `kind` and `note` are shown, and must be equal for two entries to be folded into one row."""

    name: str
    kind: Hashable
    nbytes: int
    note: str = ""


class Row(NamedTuple):
    """One row of the tree, for `times` equal tensors or modules; `entries` are the tensors, empty for modules."""

    depth: int
    label: str
    times: int
    nbytes: int
    entries: tuple[TreeEntry, ...]


class _Node:
    __slots__ = ("children", "entry", "nbytes", "signature")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.entry: TreeEntry | None = None
        self.nbytes = 0
        self.signature = -1


def fold(entries: Iterable[TreeEntry]) -> list[Row]:
    """Return the rows of the folded tree, in the order of the names.

    >>> rows = fold(TreeEntry(f"layers.{i}.{leaf}", "float32", 4) for i in range(12) for leaf in ("weight", "bias"))
    >>> [(row.depth, row.label, row.times, row.nbytes) for row in rows]
    [(0, 'layers.{0…11}', 12, 96), (1, 'weight', 12, 48), (1, 'bias', 12, 48)]
    """
    root = _Node()
    for entry in entries:
        node = root
        for part in entry.name.split(".", DEEPEST):
            children = node.children
            below = children.get(part)
            if below is None:
                below = children[part] = _Node()
            node = below
        node.entry = entry
    _sign(root, {})
    return [row for label, group in _groups([root]) for row in _rows(label, group, 0)]


def _sign(node: _Node, known: dict[Hashable, int]) -> None:
    """Set the signature of the node and all nodes below it: equal numbers for equal subtrees."""
    node.nbytes = node.entry.nbytes if node.entry else 0
    below = []
    for label, child in node.children.items():
        _sign(child, known)
        node.nbytes += child.nbytes
        below.append((label, child.signature))
    node.signature = known.setdefault((node.entry and node.entry[1:], *below), len(known))


def _groups(nodes: list[_Node]) -> Iterator[tuple[str, list[_Node]]]:
    """Return the children of equal nodes in groups: a label, and the equal children with this label."""
    found: dict[Hashable, list[str]] = {}
    for label, child in nodes[0].children.items():
        numbered = NUMBERED.fullmatch(label)
        found.setdefault((numbered[1], child.signature) if numbered else label, []).append(label)
    for labels in found.values():
        shown = labels[0]
        if len(labels) > 1:
            stem = shown[: len(shown) - len(NUMBERED.fullmatch(shown)[2])]  # type: ignore[index]  # as it was keyed
            shown = f"{stem}{{{spans(sorted(int(label[len(stem) :]) for label in labels))}}}"
        yield shown, [node.children[label] for node in nodes for label in labels]


def _rows(label: str, nodes: list[_Node], depth: int) -> Iterator[Row]:
    """Return the rows of one group of equal nodes; a module with only one child shares its row."""
    below = list(_groups(nodes))
    while nodes[0].entry is None and len(below) == 1:
        inner, nodes = below[0]
        label, below = f"{label}.{inner}", list(_groups(nodes))
    entries = tuple(node.entry for node in nodes if node.entry)
    yield Row(depth, label, len(nodes), nodes[0].nbytes * len(nodes), entries)
    for inner, group in below:
        yield from _rows(inner, group, depth + 1)
