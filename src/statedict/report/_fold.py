"""Names folded into a tree over repeated layers: a list of entries goes in, the rows to print come out.

Siblings whose names differ in their last number only, and below which everything is equal (names, dtypes, shapes), are
one row: `layers.{0…11}`. So a model of 10,000 tensors reads like its source code. Sizes are totals over what a row stands
for. The work is linear in the names: a subtree's signature is one interned number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from statedict.state import spans

# Below this many dots a name is one label: a hostile name of 10,000 dots must not become 10,000 nested calls.
DEEPEST = 50
NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,17})", re.DOTALL)


class Entry(NamedTuple):
    """One named thing: `kind` and `note` are shown, and must be equal for two things to be folded into one row."""

    name: str
    kind: Hashable
    nbytes: int
    note: str = ""


class Row(NamedTuple):
    """One line of the tree: `entries` are the `times` equal things that it stands for, none for a module."""

    depth: int
    label: str
    times: int
    nbytes: int
    entries: tuple[Entry, ...]


class _Node:
    __slots__ = ("children", "entry", "nbytes", "signature")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.entry: Entry | None = None
        self.nbytes = 0
        self.signature = -1


def fold(entries: Iterable[Entry]) -> list[Row]:
    """The rows of the folded tree, in the order of the names.

    >>> rows = fold(Entry(f"layers.{i}.{leaf}", "float32", 4) for i in range(12) for leaf in ("weight", "bias"))
    >>> [(row.depth, row.label, row.times, row.nbytes) for row in rows]
    [(0, 'layers.{0…11}', 12, 96), (1, 'weight', 12, 48), (1, 'bias', 12, 48)]
    """
    root = _Node()
    for entry in entries:
        node = root
        for part in entry.name.split(".", DEEPEST):
            node = node.children.setdefault(part, _Node())
        node.entry = entry
    _sign(root, {})
    return [row for label, group in _groups([root]) for row in _rows(label, group, 0)]


def _sign(node: _Node, known: dict[Hashable, int]) -> None:
    """Give the node and all below it a number that is equal where everything below is equal."""
    for child in node.children.values():
        _sign(child, known)
    own = node.entry
    node.nbytes = sum(child.nbytes for child in node.children.values()) + (own.nbytes if own else 0)
    below = tuple((label, child.signature) for label, child in node.children.items())
    node.signature = known.setdefault(((own.kind, own.nbytes, own.note) if own else None, below), len(known))


def _groups(nodes: list[_Node]) -> Iterator[tuple[str, list[_Node]]]:
    """The children of equal nodes as they will be shown: a label, and the equal children that it stands for."""
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
    """The rows of one group of equal nodes; a module with one child only shares its child's row."""
    below = list(_groups(nodes))
    while nodes[0].entry is None and len(below) == 1:
        inner, nodes = below[0]
        label, below = f"{label}.{inner}", list(_groups(nodes))
    entries = tuple(node.entry for node in nodes if node.entry)
    yield Row(depth, label, len(nodes), nodes[0].nbytes * len(nodes), entries)
    for inner, group in below:
        yield from _rows(inner, group, depth + 1)
