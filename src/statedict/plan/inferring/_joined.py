"""Find tensors that are joined on one side: the query, key and value of attention, the two inputs of a gated MLP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from ..operations._specs import Shape
from ._nodes import Node
from ._reasons import JOINED, STACKED, Reason
from ._words import alike, words

Joined = tuple[tuple[str, ...], tuple[str, ...], str, Reason]

# The words of the parts, in the order in which they are joined. Without them, three or two neighbours are joined.
_ORDERS = (("query", "key", "value"), ("key", "value"), ("gate", "up"))


def joined(sources: Sequence[Node], targets: Sequence[Node]) -> list[Joined]:
    """Return the tensors that make one of the other side, as names, the text of the operations, and the reason."""
    found = [(parts, (whole,), "stack 0", STACKED) for whole, parts in _stacks(targets, sources)]
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
    families: dict[tuple[str, Shape], list[Node]] = {}
    for node in candidates:
        *others, last = node.numbers or (None,)
        if last is not None:
            above = (str(others), node.pattern)
            families.setdefault((" ".join(above), node.entries[0].shape), []).append(node)
    for whole in wholes:
        shape = whole.entries[0].shape
        fitting = [
            (key, some) for key, some in families.items() if shape[:1] == (len(some),) and shape[1:] == key[1] and len(some) > 1
        ]
        if len(fitting) > 1:
            last = words(whole.path)[-1:]
            fitting = [one for one in fitting if any(alike(a, b) >= 0.6 for a in last for b in words(one[1][0].path)[-2:])]
        if len(fitting) == 1:
            ((key, some),) = fitting
            del families[key]
            yield whole.path, tuple(node.path for node in sorted(some, key=lambda node: node.numbers))


def _parts_of(
    wholes: Sequence[Node], candidates: Sequence[Node]
) -> Iterator[tuple[str, tuple[str, ...], str, bool]]:
    free = list(candidates)
    for whole in wholes:
        (entry,) = whole.entries
        if not 1 <= len(entry.shape) <= 2:
            continue
        for turned in (False, True):
            made = _chosen(whole, [node for node in free if _is_part(node, whole, turned)], turned)
            if made:
                parts, sizes = made
                for node in parts:
                    free.remove(node)
                yield whole.path, tuple(node.path for node in parts), " ".join(map(str, sizes)), turned
                break


def _is_part(node: Node, whole: Node, turned: bool) -> bool:
    """Whether a tensor may be a part: a shape that differs in one dimension only, and the same last word."""
    shape, of = node.entries[0].shape, whole.entries[0].shape
    if turned and (len(of) != 2 or of[0] == of[1]):
        return False
    expected = of[::-1] if turned else of
    last = words(node.path.rpartition(".")[2])[-1:], words(whole.path.rpartition(".")[2])[-1:]
    fits = len(shape) == len(expected) and shape[1:] == expected[1:] and shape[0] < expected[0]
    return fits and last[0] == last[1] and (node.numbers == whole.numbers or not (node.numbers and whole.numbers))


def _chosen(whole: Node, some: list[Node], turned: bool) -> tuple[list[Node], list[int]] | None:
    """Choose the parts, by their words or else the first neighbours of fitting sizes."""
    total = max(whole.entries[0].shape) if turned else whole.entries[0].shape[0]
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
        if len(beside) <= 12:
            yield from combinations(beside, count)


def _in_order(group: Sequence[Node], order: Sequence[str]) -> list[Node] | None:
    """Return the group in the order of these words; None if it does not have each of them once."""
    found = []
    for word in order:
        fitting = [node for node in group if any(alike(one, word) >= 0.6 for one in words(node.path.rpartition(".")[0])[-3:])]
        if len(fitting) != 1:
            return None
        found += fitting
    return found
