"""Match the tensors of two modules: modules with the same contents correspond, from the largest to the smallest.

*Theory of operation.* The number of elements of a module does not change if its tensors are transposed, reshaped, joined or
split. Therefore the two trees are opened from the top, the largest module first: the modules of one size are compared with
those of the same size on the other side, and modules without an equal are replaced by their children. So modules are
matched at any depth. Modules with the same contents, equally many on both sides, are a *class*; `_classes` pairs its
members. Then each pair is matched in the same way, on its own. Equal blocks are matched once.

Tensors that remain may be joined on the other side (`_joined`): they are taken out, and the rest is matched again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from statedict.state import parents

from ._classes import LAYER, Context, NodePair, resolve, selected
from ._joined import joined
from ._nodes import Entries, Node, nodes
from ._operations import operation
from ._reasons import LAST, LEFT_OVER, NUMBERED, RESHAPED, REVERSED, SIMILAR, UNEVEN, UNIQUE, Reason
from ._uneven import told_apart
from ._words import agree, distinctive, words


class Matched(NamedTuple):
    """Tensors of the source that make tensors of the model, by names relative to a module, and the reason."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: str
    reason: Reason

    def below(self, source: str, target: str, reason: Reason) -> Matched:
        """Return the match with the names below two paths; it is only as certain as the match of these modules."""
        sources, targets = (
            tuple(_join(source, n) for n in self.sources),
            tuple(_join(target, n) for n in self.targets),
        )
        return Matched(sources, targets, self.operations, self.reason.weaker(reason))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


class Matcher:
    """Matches modules; equal pairs of modules are matched once. `transposed` says how matrices are stored."""

    def __init__(self, transposed: bool | None) -> None:
        self._transposed = transposed
        self._known: dict[tuple[Entries, Entries], list[Matched]] = {}

    def __call__(self, source: Entries, target: Entries, whole: bool = True) -> list[Matched]:
        """Return the matches between the tensors of two modules, with names relative to these modules.

        `whole` says that these are all tensors, of which either side may have more.
        """
        key = (source, target)
        if key not in self._known:
            self._known[key] = self._found(source, target, whole)
        return self._known[key]

    def _found(self, source: Entries, target: Entries, whole: bool) -> list[Matched]:
        matches: list[Matched] = []
        left, right = source, target
        while parts := joined(*(front := _Front(nodes(left), nodes(right), self._transposed)).left_over):
            found = [Matched(*one) for one in parts]
            left = _without(left, (name for one in found for name in one.sources))
            right = _without(right, (name for one in found for name in one.targets))
            matches += found
        pairs = front.pairs((told_apart(source, left), told_apart(target, right)), whole)
        return matches + [
            match.below(pair.source.path, pair.target.path, pair.reason)
            for pair in pairs
            for match in self._inside(pair)
        ]

    def _inside(self, pair: NodePair) -> list[Matched]:
        source, target = pair.source, pair.target
        if not source.is_tensor and not target.is_tensor:
            return self(source.entries, target.entries, whole=False)
        how, exact = operation(source.entries[0].shape, target.entries[0].shape)
        reason = pair.reason if exact else RESHAPED
        return [Matched(("",), ("",), how, reason)]


class _Front:
    """The nodes of two modules, replaced by their children until both sides have equal ones.

    The equal ones are `classes`, with as many nodes on one side as on the other; the remaining tensors are `left_over`.
    """

    def __init__(self, left: Iterable[Node], right: Iterable[Node], transposed: bool | None) -> None:
        self.classes: list[tuple[list[Node], list[Node]]] = []
        self.selected: list[NodePair] = []
        self.left_over: tuple[list[Node], list[Node]] = ([], [])
        self._transposed = transposed
        self._sizes: dict[int, tuple[list[Node], list[Node]]] = {}
        for side, some in enumerate((left, right)):
            self._add(side, some)
        while self._sizes:
            self._compare(*self._sizes.pop(max(self._sizes)))

    def _add(self, side: int, some: Iterable[Node]) -> None:
        for node in some:
            self._sizes.setdefault(node.size, ([], []))[side].append(node)

    def _compare(self, left: list[Node], right: list[Node]) -> None:
        """Make classes of the nodes of one size, and open the others."""
        rest: tuple[list[Node], list[Node]] = ([], [])
        for ours, theirs in _grouped(left, right):
            if len(ours) == len(theirs):
                self._classify(ours, theirs)
            elif same := selected(ours, theirs):
                self.selected += same
            else:
                rest[0].extend(ours)
                rest[1].extend(theirs)
        modules = [[node for node in side if not node.is_tensor] for side in rest]
        if len(rest[0]) == len(rest[1]) > 0 and (modules == [[], []] or modules == list(rest)):
            self.classes.append(rest)
            return
        for side, some in enumerate(rest):
            for node in some:
                if node.is_tensor:
                    self.left_over[side].append(node)
                else:
                    self._add(side, node.children())

    def _classify(self, ours: list[Node], theirs: list[Node]) -> None:
        """Make one class, or several if the order of the dimensions distinguishes them."""
        if len(ours) == 1:
            self.classes.append((ours, theirs))
            return
        kinds = [Counter(node.exact() for node in ours)]
        kinds += [Counter(node.exact(turned) for node in theirs) for turned in (False, True)]
        fits = [turned for turned in (False, True) if kinds[0] == kinds[1 + turned]]
        turned = fits[0] if len(fits) == 1 else self._transposed if len(fits) == 2 else None
        if turned is None and fits and all(node.exact() == node.exact(True) for node in theirs):
            turned = False
        if turned is None or len(kinds[0]) == 1:
            self.classes.append((ours, theirs))
            return
        for key in kinds[0]:
            some = [node for node in ours if node.exact() == key]
            self.classes.append((some, [node for node in theirs if node.exact(turned) == key]))

    def _all(self) -> list[list[Node]]:
        both = [*self.classes, self.left_over]
        return [[node for pair in both for node in pair[side]] for side in (0, 1)]

    def pairs(self, doubtful: tuple[set[str], set[str]], whole: bool) -> list[NodePair]:
        """Pair the members of the classes, the certain ones first, and then the remaining tensors, by their names.

        In the modules `doubtful` of the two sides, only names make a pair certain.
        """
        context, pairs = Context(*self._all()), list(self.selected)
        waiting = [(ours, theirs) for ours, theirs in self.classes if len(ours) > 1]
        for ours, theirs in self.classes:
            if len(ours) == 1 == len(theirs):
                pairs.append(_told_by_name(NodePair(ours[0], theirs[0], UNIQUE), doubtful))
                if pairs[-1].reason.certain:
                    context.add(pairs[-1])
        for final in (False, True):
            later = []
            for ours, theirs in waiting:
                found = [_told_by_name(pair, doubtful) for pair in resolve(ours, theirs, context)]
                if final or all(pair.reason.certain for pair in found):
                    pairs += found
                    for pair in found if not final else ():
                        context.add(pair)
                else:
                    later.append((ours, theirs))
            waiting = later
        named = list(_by_words(*self.left_over, context))
        done = {id(node) for pair in named for node in (pair.source, pair.target)}
        left = any(id(node) not in done for side in self.left_over for node in side)
        return [_doubted(pair) for pair in pairs + named] if whole or left else pairs + named


def _told_by_name(pair: NodePair, doubtful: tuple[set[str], set[str]]) -> NodePair:
    """Doubt a pair in a doubtful module if only contents and numbers tell what corresponds."""
    inside = any(not paths.isdisjoint((n.path, *parents(n.path))) for paths, n in zip(doubtful, pair[:2]))
    return pair._replace(reason=UNEVEN) if inside and pair.reason in (UNIQUE, NUMBERED, REVERSED, LAST) else pair


def _without(entries: Entries, names: Iterable[str]) -> Entries:
    gone = {*names}
    return tuple(entry for entry in entries if entry.name not in gone)


def _doubted(pair: NodePair) -> NodePair:
    """Doubt a single layer whose names do not agree: tensors may be missing, and others may have the same shapes."""
    alone = pair.reason in (UNIQUE, LAST, SIMILAR) and len(pair.source.entries) <= LAYER
    said = distinctive(words(f"{pair.source.path}.{pair.target.path}"))
    if alone and said and not agree(pair.source.path, pair.target.path):
        return pair._replace(reason=LEFT_OVER)
    return pair


def _grouped(left: Iterable[Node], right: Iterable[Node]) -> list[tuple[list[Node], list[Node]]]:
    """Group the nodes of both sides by their contents."""
    groups: dict[object, tuple[list[Node], list[Node]]] = {}
    for side, some in enumerate((left, right)):
        for node in some:
            groups.setdefault(node.content, ([], []))[side].append(node)
    return list(groups.values())


def _by_words(left: list[Node], right: list[Node], context: Context) -> Iterable[NodePair]:
    """Pair tensors of the same shape by clearly similar names, if there are more of them on one side."""
    for ours, theirs in _grouped(left, right):
        if ours and theirs:
            yield from resolve(ours, theirs, context)
