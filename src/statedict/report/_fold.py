"""Fold names into a tree over repeated layers: from names, kinds and sizes to the rows to print.

Siblings whose names differ only in their last number, and whose contents are equal (names and kinds), share a row:
`layers.{0…11}`. Sizes are totals of a row. The time is linear in the number of names: the signature of a subtree is one
interned number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

from statedict.state import spans

# After this many dots, the rest of a name is one label, so that a hostile name of 10,000 dots cannot cause deep recursion.
DEEPEST = 50


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
    return [row for label, nodes in tree.groups([root]) for row in tree.rows(label, nodes, 0)]


class _Tree:
    """A tree in columns. A node is a number: the index of a tensor, or a higher one for a module, which has `children`.

    If there is only one tensor below a module, it takes the module's place: `rests` has the rest of its name. This saves a
    third of the time for names that cannot be folded ("Listings" in docs/performance.md). A module that is a tensor, too,
    is in `own`. Equal subtrees have equal signatures.
    """

    def __init__(self, names: list[str], kinds: Sequence[Hashable], sizes: Sequence[int]) -> None:
        self.names, self.kinds, self.sizes = names, kinds, list(sizes)
        self.rests = [""] * len(names)
        self.signatures = [-1] * len(names)
        self.children: dict[int, dict[str, int]] = {}
        self.own: dict[int, int] = {}
        self._known: dict[Hashable, int] = {}

    def add(self, which: Iterable[int], start: int, depth: int) -> int:
        """Add a module for the tensors `which`, whose names have their first `start` characters in common."""
        names, own = self.names, None
        below: defaultdict[str, list[int]] = defaultdict(list)
        for index in which:
            rest = names[index][start:]
            if rest or len(names[index]) >= start:
                below[rest.partition(".")[0] if depth < DEEPEST else rest].append(index)
            else:  # the name of the module itself, without a dot at the end
                own = index
        children = {}
        for label, some in below.items():
            end = start + len(label)
            children[label] = self.add(some, end + 1, depth + 1) if len(some) > 1 else self._end(some[0], end)
        node, nodes = len(self.sizes), list(children.values())
        self.children[node] = children
        if own is not None:
            self.own[node] = own
            nodes.append(own)
        self.sizes.append(sum(map(self.sizes.__getitem__, nodes)))
        self.rests.append("")
        signatures = map(self.signatures.__getitem__, children.values())
        self.signatures.append(self._signature((own is None or (self.kinds[own],), *children, *signatures)))
        return node

    def _end(self, index: int, end: int) -> int:
        """Return a tensor whose name has no other tensor beside it from the character `end` on."""
        rest = self.rests[index] = self.names[index][end:]
        self.signatures[index] = self._signature((self.kinds[index], rest))
        return index

    def _signature(self, content: Hashable) -> int:
        return self._known.setdefault(content, len(self._known))

    def groups(self, nodes: list[int]) -> list[tuple[str, list[int]]]:
        """Return the children of equal nodes in groups: a label, and the equal children with this label."""
        found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for label, child in self.children[nodes[0]].items():
            number = _last_number(label)
            found[(label[: -len(number)], self.signatures[child]) if number else (label, -1)].append(label)
        groups = []
        for (stem, _), labels in found.items():
            shown = labels[0]
            if len(labels) > 1:
                shown = f"{stem}{{{spans(sorted(int(label[len(stem) :]) for label in labels))}}}"
            group = [self.children[node][label] for node in nodes for label in labels]
            groups.append((shown + self.rests[group[0]], group))
        return groups

    def rows(self, label: str, nodes: list[int], depth: int) -> Iterator[Row]:
        """Yield the rows of one group of equal nodes; a module with only one child shares its row."""
        below = self.groups(nodes) if nodes[0] in self.children else []
        while len(below) == 1 and nodes[0] not in self.own:
            ((inner, nodes),) = below
            label, below = f"{label}.{inner}", self.groups(nodes) if nodes[0] in self.children else []
        which = nodes if nodes[0] not in self.children else [self.own[node] for node in nodes if node in self.own]
        yield Row(depth, label, len(nodes), sum(map(self.sizes.__getitem__, nodes)), tuple(which))
        for inner, group in below:
            yield from self.rows(inner, group, depth + 1)


def _last_number(label: str) -> str:
    """Return the number at the end of a label, without leading zeros; empty if there is none. It has at most 18 digits."""
    digits = label[len(label.rstrip("0123456789")) :][-18:]
    return digits.lstrip("0") or digits[-1:]
