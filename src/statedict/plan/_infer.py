"""infer: a KeyMap for a model whose names differ from the source's, each step with its reason. It is a proposal.

The stages, each taking only what the ones before it left: the same name; the same but for wrappers; one prefix exchanged for
another; the longest common ending with the same shape that nothing else has; order and shape inside modules that the stages
before have brought together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from statedict.errors import CollisionError
from statedict.state import parents, raw_values

from ..errors import printable
from ._order import Node, Shapes, pair_in_order
from .names._generalise import folded_pairs, generalise, numbered
from .names._keymap import KeyMap
from .names._parts import mates, parts_of, told
from .names._wrappers import pair
from .operations._facts import shape_of
from .reports._best_rule import best_rule
from .tensors._fit import fits

_LINES = 20


class Inferred(NamedTuple):
    """One name brought together with a slot, and why."""

    source: str
    target: str
    reason: str


class Inference(NamedTuple):
    """What was inferred: `key_map` does what `steps` say; `unmatched` and `unfilled` are what no stage could place,
    and `notes` say why where that is known.

    It has changed nothing. Look at it, then load with `rename=inference.key_map`.
    """

    key_map: KeyMap
    steps: tuple[Inferred, ...]
    unmatched: tuple[str, ...]
    unfilled: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = len(self.steps) + len(self.unfilled)
        lines = [f"{len(self.steps):,} of {total:,} slots have a source; {len(self.unmatched):,} names are left over"]
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
        return "\n".join(map(printable, [*lines, "as a key map:", *(f"  {rule}" for rule in self.key_map.rules)]))


def infer(target: Mapping[str, Any], source: Mapping[str, Any]) -> Inference:
    """The KeyMap that would bring the names of `source` to those of `target`, with reasons. Nothing is read or changed.

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
    notes = told(search.slots, search.sources, search.source_parts, search.slot_parts)
    return Inference(generalise(pairs, search.sources), steps, tuple(search.sources), tuple(search.slots), tuple(notes))


class _Search:
    """What is still to be placed on either side, with shapes, and the steps so far."""

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
        """Names that are not to be placed."""
        for name in names:
            self.sources.pop(name, None)
            self.slots.pop(name, None)

    def fit(self, source: str, slot: str) -> bool:
        return fits(self.source_shapes[source], self.slot_shapes[slot]) and self.may_be(source, slot)

    def may_be(self, source: str, slot: str) -> bool:
        """Whether neither is a part of a weight that the other is."""
        return mates(source, slot, self.source_parts, self.slot_parts)


def _wrapped(search: _Search) -> list[Inferred]:
    """The same name, with or without wrappers."""
    try:
        pairs, _, own = pair(search.sources, search.slots)
    except CollisionError:  # a proposal need not settle it: whoever loads is told
        pairs, _, own = pair(search.sources, search.slots, wrappers=False)
    search.leave(own)
    reasons = ("the same name but for wrappers", "the same name")
    return [Inferred(old, new, reasons[old == new]) for old, new in pairs.items()]


def _prefixed(search: _Search) -> list[Inferred]:
    """One beginning exchanged for another, where shapes are equal."""
    best = best_rule(search.slots, search.sources)
    if best is None or best.solves < 2:
        return []
    key_map = KeyMap(best.rule)
    moved = {name: key_map(name) for name in search.sources}
    reason = f"one prefix for another: {best.rule}"
    return [Inferred(a, b, reason) for a, b in moved.items() if b in search.slots and search.fit(a, b)]


def _by_ending(search: _Search) -> Iterator[Inferred]:
    """The longest ending that, with its shape, only one name of each side has."""
    longest = max((name.count(".") + 1 for name in (*search.sources, *search.slots)), default=0)
    for length in range(longest, 0, -1):
        ours = _endings(search.slots, search.slot_shapes, length)
        theirs = _endings(search.sources, search.source_shapes, length)
        for ending, names in theirs.items():
            slots = ours.get(ending, ())
            if len(names) == 1 == len(slots) and ending[1] is not None and search.may_be(names[0], slots[0]):
                yield Inferred(names[0], slots[0], f"the same ending of {length} and shape, found once")


def _endings(names: Iterable[str], shapes: Shapes, length: int) -> dict[tuple[str, Any], list[str]]:
    """Names by their last components and their shape; those that have so many."""
    endings: dict[tuple[str, Any], list[str]] = {}
    for name in names:
        parts = name.rsplit(".", length)
        if name.count(".") + 1 >= length:
            endings.setdefault((".".join(parts[-length:]), shapes[name]), []).append(name)
    return endings


def _by_order(search: _Search) -> Iterator[Inferred]:
    """Order and shape inside modules that already belong together, the deepest first, and at last in the whole."""
    sources, slots = _below(search.sources), _below(search.slots)
    for old, new in _modules(search.steps, sources, slots):
        reason = f"the same order and shape inside {' and '.join(_inside(old, new))}"
        for in_parts in (False, True):  # what is a part is no partner of what is whole
            left = Node(
                old, tuple(n for n in sources[old] if n in search.sources and (n in search.source_parts) is in_parts)
            )
            right = Node(
                new, tuple(n for n in slots[new] if n in search.slots and (n in search.slot_parts) is in_parts)
            )
            for source, slot in pair_in_order(left, right, search.source_shapes, search.slot_shapes):
                yield Inferred(source, slot, reason)


def _inside(old: str, new: str) -> tuple[str, str]:
    """Two modules in words, their numbers left open where they are the same."""
    rule = numbered(old, new)
    return str(rule.sources[0]) or "the root", str(rule.targets[0]) or "the root"


def _below(names: Iterable[str]) -> dict[str, list[str]]:
    """The names below each module path, the root `""` included."""
    below: dict[str, list[str]] = {}
    for name in names:
        for path in parents(name):
            below.setdefault(path, []).append(name)
    return below


def _modules(
    steps: Iterable[Inferred], sources: Mapping[str, list[str]], slots: Mapping[str, list[str]]
) -> list[tuple[str, str]]:
    """The modules with names left on both sides that most steps bring together, the deepest first, the roots last."""
    votes: dict[str, Counter[str]] = {}
    for step in steps:
        for old, new in zip(parents(step.source), parents(step.target)):
            if old in sources and new in slots:
                votes.setdefault(old, Counter())[new] += 1
    found = {old: news.most_common(1)[0][0] for old, news in votes.items()}
    pairs = [(old, new) for old, new in found.items() if old or new]
    pairs.sort(key=lambda pair: -pair[0].count("."))
    return [*pairs, *([("", "")] if sources and slots else [])]
