"""Find tensors that are joined on one side: the query, key and value of attention, the two inputs of a gated MLP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from ..operations._specs import Shape
from ._nodes import Node, Numbers
from ._reasons import JOINED, STACKED, Reason
from ._words import alike, words

Joined = tuple[tuple[str, ...], tuple[str, ...], str, Reason]

_Key = tuple[Shape, tuple[str, ...], Numbers]
# More tensors than this in a module are not searched for parts.
_MOST = 12
# The same for all modules together: layers whose blocks did not correspond. The time is this times the number of tensors.
_MANY = 256
# The words of the parts, in the order in which they are joined.
_ORDERS = (("query", "key", "value"), ("key", "value"), ("gate", "up"))


def joined(sources: Sequence[Node], targets: Sequence[Node]) -> list[Joined]:
    """Return the tensors that make one of the other side, as names, the text of the operations, and the reason."""
    found: list[Joined] = [(parts, (whole,), "stack 0", STACKED) for whole, parts in _stacks(targets, sources)]
    found += [((whole,), parts, "unstack 0", STACKED) for whole, parts in _stacks(sources, targets)]
    if found:
        return found
    for whole, parts, sizes, turned in _parts_of(targets, sources):
        found.append((parts, (whole,), f"cat 0 {sizes}{' | transpose' * turned}", JOINED))
    for whole, parts, sizes, turned in _parts_of(sources, targets):
        found.append(((whole,), parts, f"split {int(turned)} {sizes}{' | transpose' * turned}", JOINED))
    return found


def _stacks(wholes: Sequence[Node], candidates: Sequence[Node]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Return the tensors that are a stack of numbered tensors of the other side, and these in the order of their numbers."""
    families: dict[tuple[Numbers, str, Shape], list[Node]] = {}
    for node in candidates:
        if node.numbers:
            families.setdefault((node.numbers[:-1], node.pattern, node.entries[0].shape), []).append(node)
    for whole in wholes:
        shape = whole.entries[0].shape
        fitting = [
            (key, some)
            for key, some in families.items()
            if shape[:1] == (len(some),) and shape[1:] == key[2] and len(some) > 1
        ]
        if len(fitting) > 1:
            last = words(whole.path)[-1:]
            fitting = [
                one for one in fitting if any(alike(a, b) >= 0.6 for a in last for b in words(one[1][0].path)[-2:])
            ]
        if len(fitting) == 1:
            ((key, some),) = fitting
            del families[key]
            yield whole.path, tuple(node.path for node in sorted(some, key=lambda node: node.numbers))


def _parts_of(wholes: Sequence[Node], candidates: Sequence[Node]) -> Iterator[tuple[str, tuple[str, ...], str, bool]]:
    groups: dict[_Key, list[Node]] = {}
    for node in candidates:
        if node.entries[0].shape:
            groups.setdefault(_key(node, node.entries[0].shape), []).append(node)
    waiting: dict[tuple[_Key, int, bool], list[Node]] = {}
    for whole in wholes:
        shape = whole.entries[0].shape
        for turned in (False, True) if len(shape) == 2 and shape[0] != shape[1] else (False,):
            of = shape[::-1] if turned else shape
            if len(shape) in (1, 2):
                waiting.setdefault((_key(whole, of), of[0], turned), []).append(whole)
    done = set()
    for (key, total, turned), some in waiting.items():
        group = groups.get(key, [])
        some = [whole for whole in some if whole.path not in done] if len(group) <= _MANY else []
        while some and (made := _chosen(total, [node for node in group if node.entries[0].shape[0] < total])):
            parts, sizes = made
            whole = max(some, key=lambda whole: _common(whole, parts))
            some.remove(whole)
            done.add(whole.path)
            for node in parts:
                group.remove(node)
            yield whole.path, tuple(node.path for node in parts), " ".join(map(str, sizes)), turned


def _common(whole: Node, parts: Sequence[Node]) -> int:
    """Count the words of a tensor that its parts have, too."""
    said = {word for node in parts for word in words(node.path)}
    return sum(any(alike(word, other) >= 0.6 for other in said) for word in words(whole.path))


def _key(node: Node, shape: Shape) -> _Key:
    """Return what a tensor and its parts have in common: the dimensions but the first, the last word, and the numbers."""
    return shape[1:], words(node.path.rpartition(".")[2])[-1:], node.numbers


def _chosen(total: int, some: list[Node]) -> tuple[list[Node], list[int]] | None:
    """Choose the parts by their words, so that their sizes add up to `total`."""
    sizes = {id(node): node.entries[0].shape[0] for node in some}
    for order in _ORDERS:
        for group in _groups(some, len(order)):
            parts = _in_order(group, order)
            if parts and sum(sizes[id(node)] for node in parts) == total:
                return parts, [sizes[id(node)] for node in parts]
    return None


def _groups(some: list[Node], count: int) -> Iterator[tuple[Node, ...]]:
    by_module: dict[str, list[Node]] = {}
    for node in some:
        by_module.setdefault(node.path.rpartition(".")[0].rpartition(".")[0], []).append(node)
    for beside in by_module.values():
        if len(beside) <= _MOST:
            yield from combinations(beside, count)


def _in_order(group: Sequence[Node], order: Sequence[str]) -> list[Node] | None:
    """Return the group in the order of these words; None if it does not have each of them once."""
    found = []
    for word in order:
        fitting = [
            node for node in group if any(alike(one, word) >= 0.6 for one in words(node.path.rpartition(".")[0])[-3:])
        ]
        if len(fitting) != 1 or fitting[0] in found:
            return None
        found += fitting
    return found
