"""Propose a KeyMap for a model whose names differ from those of the source, with a reason for each step.

Each stage handles only the names that the stages before it left: the same name; the same name without wrappers; one prefix
replaced by another; the longest common ending with the same shape, if it is unique; order and shape inside modules that the
earlier stages have matched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from statedict.errors import CollisionError
from statedict.state import parents, raw_values

from ..errors import printable
from .names._generalise import folded_pairs, generalise, numbered
from .names._keymap import KeyMap
from .names._parts import may_match, notes_on_parts, parts_of
from .names._wrappers import pair
from .operations._specs import Shape, shape_of
from .reports._best_rule import best_rule
from .tensors._fit import fits

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
    if relative:  # to the node; the node itself has its last component
        return lambda node: tuple(
            (name[len(node.path) + 1 :] or name.rpartition(".")[2], shapes[name]) for name in node.names
        )
    return lambda node: tuple(shapes[name] for name in node.names)


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


_LINES = 20


class Inferred(NamedTuple):
    """One source name matched with a model tensor, and the reason."""

    source: str
    target: str
    reason: str


class Inference(NamedTuple):
    """The result of `match`. Print it and check it, then load with `rename=inference.key_map`.

    Attributes:
        key_map: the rules that rename as `steps` say.
        steps: the matched names, each with its reason.
        unmatched: source names without a model tensor.
        unfilled: names of model tensors without a source.
        notes: known reasons why names could not be matched.

    >>> import numpy as np, statedict
    >>> found = statedict.match({"encoder.weight": np.zeros(2)}, {"net.encoder.weight": np.ones(2), "old": np.ones(3)})
    >>> str(found.key_map), found.unmatched
    ('net.{*p} -> {*p}', ('old',))
    """

    key_map: KeyMap
    steps: tuple[Inferred, ...]
    unmatched: tuple[str, ...]
    unfilled: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = len(self.steps) + len(self.unfilled)
        lines = [
            f"{len(self.steps):,} of {total:,} model tensors matched, {len(self.unmatched):,} checkpoint tensors unused"
        ]
        reasons: dict[str, list[tuple[str, str]]] = {}
        for step in self.steps:
            reasons.setdefault(step.reason, []).append((step.source, step.target))
        for reason, pairs in reasons.items():
            lines.append(f"{reason}: {len(pairs):,}")
            folded = folded_pairs((old, new) for old, new in pairs if old != new)
            lines += [
                f"  {line}" + (f"  ×{count:,}" if count > 1 else "") for line, count in list(folded.items())[:_LINES]
            ]
            lines += [f"  … and {len(folded) - _LINES:,} more"] if len(folded) > _LINES else []
        lines += list(self.notes[:_LINES])
        return "\n".join(map(printable, [*lines, "key map:", *(f"  {rule}" for rule in self.key_map.rules)]))


def infer(target: Mapping[str, Any], source: Mapping[str, Any]) -> Inference:
    """Infer the KeyMap that renames the tensors of `source` to those of `target`. Reads no tensor and changes nothing.

    >>> import numpy as np
    >>> old = {f"h.{i}.{n}": np.zeros(s) for i in range(2) for n, s in [("ln.weight", 3), ("fc.weight", (4, 3))]}
    >>> new = {f"blocks.{i}.{n}": np.zeros(s) for i in range(2) for n, s in [("norm.weight", 3), ("fc.weight", (4, 3))]}
    >>> print(infer(new, old).key_map)
    h.{i}.ln.{*p} -> blocks.{i}.norm.{*p}
    h.{*p} -> blocks.{*p}
    """
    search = _Search(source, target)
    for stage in (_wrapped, _prefixed, _by_ending, _by_order):
        for step in stage(search):
            search.take(step)
    steps = tuple(search.steps)
    pairs = {step.source: step.target for step in steps}
    notes = notes_on_parts(search.slots, search.sources, search.source_parts, search.slot_parts)
    return Inference(generalise(pairs, search.sources), steps, tuple(search.sources), tuple(search.slots), tuple(notes))


class _Search:
    """The names not yet matched on both sides, their shapes, and the steps so far."""

    def __init__(self, source: Mapping[str, Any], target: Mapping[str, Any]) -> None:
        self.sources: dict[str, None] = dict.fromkeys(source)
        self.slots: dict[str, None] = dict.fromkeys(target)
        self.source_shapes: Shapes = {name: shape_of(value) for name, value in raw_values(source).items()}
        self.slot_shapes: Shapes = {name: shape_of(value) for name, value in raw_values(target).items()}
        self.source_parts, self.slot_parts = parts_of(self.sources), parts_of(self.slots)
        self.steps: list[Inferred] = []

    def take(self, step: Inferred) -> None:
        del self.sources[step.source], self.slots[step.target]
        self.steps.append(step)

    def leave(self, names: Iterable[str]) -> None:
        """Drop names that are not to be matched."""
        for name in names:
            self.sources.pop(name, None)
            self.slots.pop(name, None)

    def fit(self, source: str, slot: str) -> bool:
        return fits(self.source_shapes[source], self.slot_shapes[slot]) and self.may_be(source, slot)

    def may_be(self, source: str, slot: str) -> bool:
        """Whether both are whole weights, or both are parts of one (see `may_match`)."""
        return may_match(source, slot, self.source_parts, self.slot_parts)


def _wrapped(search: _Search) -> list[Inferred]:
    """Match equal names, with or without wrappers."""
    try:
        pairs, _, own = pair(search.sources, search.slots)
    except CollisionError:  # not an error in a proposal: the load itself raises it
        pairs, _, own = pair(search.sources, search.slots, wrappers=False)
    search.leave(own)
    reasons = ("same name without wrapper prefixes", "same name")
    return [Inferred(old, new, reasons[old == new]) for old, new in pairs.items()]


def _prefixed(search: _Search) -> list[Inferred]:
    """Match names after replacing one prefix by another, if the shapes are equal."""
    best = best_rule(search.slots, search.sources)
    if best is None or best.solves < 2:
        return []
    key_map = KeyMap(best.rule)
    moved = {name: key_map(name) for name in search.sources}
    reason = f"prefix replaced: {best.rule}"
    return [Inferred(a, b, reason) for a, b in moved.items() if b in search.slots and search.fit(a, b)]


def _by_ending(search: _Search) -> Iterator[Inferred]:
    """Match by the longest ending which, together with the shape, occurs once on each side."""
    longest = max((name.count(".") + 1 for name in (*search.sources, *search.slots)), default=0)
    for length in range(longest, 0, -1):
        ours = _endings(search.slots, search.slot_shapes, length)
        theirs = _endings(search.sources, search.source_shapes, length)
        for ending, names in theirs.items():
            slots = ours.get(ending, ())
            if len(names) == 1 == len(slots) and ending[1] is not None and search.may_be(names[0], slots[0]):
                last = "last name part" if length == 1 else f"last {length} name parts"
                yield Inferred(names[0], slots[0], f"same {last} and shape (unique)")


def _endings(names: Iterable[str], shapes: Shapes, length: int) -> dict[tuple[str, Any], list[str]]:
    """Group names by their last `length` components and their shape; shorter names are left out."""
    endings: dict[tuple[str, Any], list[str]] = {}
    for name in names:
        parts = name.rsplit(".", length)
        if name.count(".") + 1 >= length:
            endings.setdefault((".".join(parts[-length:]), shapes[name]), []).append(name)
    return endings


def _by_order(search: _Search) -> Iterator[Inferred]:
    """Match by order and shape inside modules that already correspond, the deepest first, the root last."""
    sources, slots = _below(search.sources), _below(search.slots)
    for old, new in _modules(search.steps, sources, slots):
        reason = f"same order and shape inside {' and '.join(_inside(old, new))}"
        for in_parts in (False, True):  # a part of a weight never matches a whole weight
            left = Node(
                old, tuple(n for n in sources[old] if n in search.sources and (n in search.source_parts) is in_parts)
            )
            right = Node(
                new, tuple(n for n in slots[new] if n in search.slots and (n in search.slot_parts) is in_parts)
            )
            for source, slot in pair_in_order(left, right, search.source_shapes, search.slot_shapes):
                yield Inferred(source, slot, reason)


def _inside(old: str, new: str) -> tuple[str, str]:
    """Return the names of two modules for a message, with placeholders for their common numbers."""
    rule = numbered(old, new)
    return str(rule.sources[0]) or "the root", str(rule.targets[0]) or "the root"


def _below(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names below each module path, including the root `""`."""
    below: dict[str, list[str]] = {}
    for name in names:
        for path in parents(name):
            below.setdefault(path, []).append(name)
    return below


def _modules(
    steps: Iterable[Inferred], sources: Mapping[str, list[str]], slots: Mapping[str, list[str]]
) -> list[tuple[str, str]]:
    """Pair the modules that most steps match and that still have names on both sides, the deepest first, the roots last."""
    votes: dict[str, Counter[str]] = {}
    for step in steps:
        for old, new in zip(parents(step.source), parents(step.target)):
            if old in sources and new in slots:
                votes.setdefault(old, Counter())[new] += 1
    found = {old: news.most_common(1)[0][0] for old, news in votes.items()}
    pairs = [(old, new) for old, new in found.items() if old or new]
    pairs.sort(key=lambda pair: -pair[0].count("."))
    return [*pairs, *([("", "")] if sources and slots else [])]
