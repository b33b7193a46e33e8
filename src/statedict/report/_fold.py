"""Fold names into a tree over repeated layers: from names, kinds and sizes to the rows to print.

Siblings whose names differ only in their last number, and whose contents are equal (names and kinds), share a row:
`layers.{0…11}`. Sizes are totals of a row. The time is linear in the number of names: the signature of a subtree is one
interned number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from statedict.state import spans

# After this many dots, the rest of a name is one label, so that a hostile name of 10,000 dots cannot cause deep recursion.
DEEPEST = 50
DIGITS = set("0123456789")
NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,17})\Z")


class Row(NamedTuple):
    """One row of the tree, for `times` equal tensors or modules; `which`: the indices of the tensors, empty for modules."""

    depth: int
    label: str
    times: int
    nbytes: int
    which: tuple[int, ...]


def fold(names: Iterable[str], kinds: Sequence[Hashable], sizes: Sequence[int]) -> list[Row]:
    """Return the rows of the folded tree, in the order of the names; tensors of different `kinds` do not share a row.

    >>> names = [f"layers.{i}.{leaf}" for i in range(12) for leaf in ("weight", "bias")]
    >>> [row[:4] for row in fold(names, ["float32"] * 24, [4] * 24)]
    [(0, 'layers.{0…11}', 12, 96), (1, 'weight', 12, 48), (1, 'bias', 12, 48)]
    """
    tree = _Tree(list(names), kinds, sizes)
    root = tree.add(range(len(kinds)), 0, 0)
    for label, nodes in tree.groups([root]):
        tree.add_rows(label, nodes, 0)
    return tree.rows


class _Tree:
    """A tree in columns. A node is a number: a tensor's index, or a higher one for a module (which may be a tensor, too).

    A module with only one tensor below it does not have a node of its own: `rests` has the rest of the tensor's name.
    Equal subtrees have equal signatures.
    """

    def __init__(self, names: list[str], kinds: Sequence[Hashable], sizes: Sequence[int]) -> None:
        self.names, self.kinds, self.sizes = names, kinds, list(sizes)
        self.rests = [""] * len(names)
        self.signatures = [-1] * len(names)
        self.children: dict[int, dict[str, int]] = {}
        self.own: dict[int, list[int]] = {}
        self.known: dict[Hashable, int] = {}
        self.rows: list[Row] = []

    def add(self, which: Iterable[int], start: int, depth: int) -> int:
        """Add a node for the tensors `which`, whose names have their first `start` characters in common."""
        names, kinds, signatures, known = self.names, self.kinds, self.signatures, self.known
        below: defaultdict[str, list[int]] = defaultdict(list)
        own: list[int] = []
        for index in which:
            rest = names[index][start:]
            if rest or len(names[index]) >= start:
                below[rest.partition(".")[0] if depth < DEEPEST else rest].append(index)
            else:
                own = [index]
        children = {}
        for label, some in below.items():
            if len(some) > 1:
                children[label] = self.add(some, start + len(label) + 1, depth + 1)
            else:
                children[label] = index = some[0]
                rest = self.rests[index] = names[index][start + len(label) :]
                signatures[index] = known.setdefault((kinds[index], rest), len(known))
        node, nodes = len(self.sizes), list(children.values())
        self.children[node], self.own[node] = children, own
        self.sizes.append(sum(map(self.sizes.__getitem__, own + nodes)))
        content = (tuple(kinds[index] for index in own), *children, *map(signatures.__getitem__, nodes))
        signatures.append(known.setdefault(content, len(known)))
        self.rests.append("")
        return node

    def groups(self, nodes: list[int]) -> list[tuple[str, list[int]]]:
        """Return the children of equal nodes in groups: a label, and the equal children with this label."""
        found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for label, child in self.children[nodes[0]].items():
            # Searching for a number takes four times as long as looking at the last character.
            number = NUMBER.search(label) if label[-1:] in DIGITS else None
            found[(label[: number.start()], self.signatures[child]) if number else (label, -1)].append(label)
        groups = []
        for (stem, _), labels in found.items():
            shown = labels[0]
            if len(labels) > 1:
                shown = f"{stem}{{{spans(sorted(int(label[len(stem) :]) for label in labels))}}}"
            group = [self.children[node][label] for node in nodes for label in labels]
            groups.append((shown + self.rests[group[0]], group))
        return groups

    def add_rows(self, label: str, nodes: list[int], depth: int) -> None:
        """Add the rows of one group of equal nodes; a module with only one child shares its row."""
        below: list[tuple[str, list[int]]] = []
        which = nodes
        while nodes[0] in self.children:
            below, which = self.groups(nodes), [index for node in nodes for index in self.own[node]]
            if which or len(below) > 1:
                break
            inner, nodes = below.pop()
            label, which = f"{label}.{inner}", nodes
        nbytes = sum(map(self.sizes.__getitem__, nodes))
        self.rows.append(Row(depth, label, len(nodes), nbytes, tuple(which)))
        for inner, group in below:
            self.add_rows(inner, group, depth + 1)
