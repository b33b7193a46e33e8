"""Pair the members of a class: modules with the same contents, or tensors of the same shape.

Members that differ only in their numbers are one *family* (`layers.0`, `layers.1` …). Families are paired by the words in
their names and by the modules above them that correspond (`Context`); the members of two families by their numbers. If
families do not fit together, single members are paired by words. Members that words do not distinguish are paired in
order, which is uncertain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from statedict.state import parents

from ._nodes import Node, Numbers, numbers, pattern
from ._reasons import CONFLICT, LAST, MORE, NUMBERED, ORDER, REVERSED, SAME_NUMBERS, SIMILAR, VAGUE, Reason
from ._words import GENERIC, ORDINALS, alike, shared, telling, words

# Names below this likeness are not similar; the best must be better than the next by the margin.
_SIMILAR, _MARGIN = 0.3, 0.2
# A module with more tensors than a linear layer has is not confused with another one by chance.
LAYER = 2
# Added to the likeness of two members if the modules above them correspond: more than any single word adds.
_STRUCTURE = 2.0
# More members than this are not compared with each other by words, which takes quadratic time.
_MOST = 96


class NodePair(NamedTuple):
    """A node of the source, the node of the model it corresponds to, and why."""

    source: Node
    target: Node
    reason: Reason


class Context:
    """Evidence from the pairs found so far: which modules above them, neighbours and numbers correspond.

    `sides` are all nodes of both sides.
    """

    def __init__(self, *sides: Iterable[Node]) -> None:
        rows = [sorted(side, key=lambda node: node.place) for side in sides]
        self._places = {id(node): (row, n) for row in rows for n, node in enumerate(row)}
        self._partners: dict[int, int] = {}
        self._votes: tuple[dict[str, Counter[str]], dict[str, Counter[str]]] = ({}, {})
        self._numbers: dict[tuple[str, str], set[tuple[Numbers, Numbers]]] = {}

    def add(self, pair: NodePair) -> None:
        self._partners[id(pair.source)] = id(pair.target)
        ours, theirs = (list(parents(node.path))[:-1] for node in pair[:2])
        for one in ours:
            for other in theirs:
                self._votes[0].setdefault(one, Counter())[other] += 1
                self._votes[1].setdefault(other, Counter())[one] += 1
        for one in (*ours, pair.source.path):
            for other in (*theirs, pair.target.path):
                if numbers(one) and numbers(other):
                    family = (pattern(one), pattern(other))
                    self._numbers.setdefault(family, set()).add((numbers(one), numbers(other)))

    def neighbours(self, source: Node, target: Node) -> int:
        """Return how many of the nodes directly before and after two nodes correspond."""
        (ours, a), (theirs, b) = self._places[id(source)], self._places[id(target)]
        beside = (
            (ours[a + step], theirs[b + step])
            for step in (-1, 1)
            if a + step in range(len(ours)) and b + step in range(len(theirs))
        )
        return sum(self._partners.get(id(one)) == id(other) for one, other in beside)

    def marks(self, node: Node, side: int) -> frozenset[tuple[str, str]]:
        """Return the modules above a node that correspond to one of the other side, as pairs."""
        found = set()
        for path in list(parents(node.path))[:-1]:
            partner = self._partner(path, side)
            if partner and self._partner(partner, 1 - side) == path:
                found.add((partner, path) if side else (path, partner))
        return frozenset(found)

    def _partner(self, path: str, side: int) -> str | None:
        votes = self._votes[side].get(path)
        if not votes:
            return None
        best = max(votes.values())
        return min((path for path, count in votes.items() if count == best), key=len)

    def numbers(self, source: str, target: str) -> set[tuple[Numbers, Numbers]]:
        """Return the numbers of the pairs found so far in two families, or below them."""
        return self._numbers.get((source, target), set())


def resolve(ours: Sequence[Node], theirs: Sequence[Node], context: Context) -> list[NodePair]:
    """Pair equally many members; of different numbers, only those that words distinguish."""
    ours, theirs = (sorted(side, key=lambda node: node.place) for side in (ours, theirs))
    families = _families(ours), _families(theirs)
    sizes = [sorted(map(len, some.values())) for some in families]
    if len(ours) != len(theirs):
        return _named(families, context)
    if sizes[0] == sizes[1] and len(families[0]) < len(ours):
        heads = [[members[0] for members in some.values()] for some in families]
        pairs = []
        for a, b, reason in _assigned(heads[0], heads[1], context):
            members = families[0][heads[0][a].pattern], families[1][heads[1][b].pattern]
            if len(members[0]) != len(members[1]):
                return _by_order(ours, theirs)
            pairs += _by_number(*members, context, reason)
        return pairs
    if len(ours) > _MOST:
        return _by_order(ours, theirs)
    return [NodePair(ours[a], theirs[b], reason) for a, b, reason in _assigned(ours, theirs, context)]


def selected(ours: Sequence[Node], theirs: Sequence[Node]) -> list[NodePair]:
    """Pair different numbers of equal blocks that have equal numbers, as in a model with fewer layers."""
    families = _families(ours), _families(theirs)
    if len(families[0]) != 1 or len(families[1]) != 1 or min(len(ours[0].entries), len(theirs[0].entries)) <= LAYER:
        return []
    numbered = {node.numbers: node for node in theirs}
    pairs = [NodePair(node, numbered[node.numbers], SAME_NUMBERS) for node in ours if node.numbers in numbered]
    return pairs if len(pairs) == min(len(ours), len(theirs)) else []


def _families(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for node in nodes:
        found.setdefault(node.pattern, []).append(node)
    return found


def _by_order(ours: Sequence[Node], theirs: Sequence[Node]) -> list[NodePair]:
    return [NodePair(a, b, ORDER) for a, b in zip(ours, theirs)]


def _by_number(ours: Sequence[Node], theirs: Sequence[Node], context: Context, reason: Reason) -> list[NodePair]:
    """Pair the members of two families by their numbers, ascending unless the pairs found so far say the opposite."""
    if len(ours) == 1:
        return [NodePair(ours[0], theirs[0], reason)]
    known = context.numbers(ours[0].pattern, theirs[0].pattern)
    ours = sorted(ours, key=lambda node: node.numbers)
    everything = [node.numbers for node in theirs] + [target for _, target in known]
    varies = next(n for n in range(len(everything[0])) if len({some[n] for some in everything}) > 1)

    def backwards(some: Numbers) -> Numbers:
        return (*some[:varies], -some[varies], *some[varies + 1 :])

    sure = reason if not reason.certain else NUMBERED if _counted(ours[0], theirs[0]) else ORDER
    for key, found in ((tuple, sure), (backwards, REVERSED)):
        ordered = sorted(theirs, key=lambda node: key(node.numbers))
        together = sorted([*known, *((a.numbers, b.numbers) for a, b in zip(ours, ordered))])
        if [target for _, target in together] == sorted((target for _, target in together), key=key):
            return [NodePair(a, b, found) for a, b in zip(ours, ordered)]
    return _by_order(ours, theirs)


def _counted(one: Node, other: Node) -> bool:
    """Whether numbers count positions: they stand alone on both sides, or what they number has similar names."""
    if all(part == "#" or "#" not in part for node in (one, other) for part in node.pattern.split(".")):
        return True
    numbered = [words(node.pattern[: node.pattern.rindex("#")])[-1:] for node in (one, other)]
    if set(numbered[0]) <= GENERIC or set(numbered[1]) <= GENERIC:
        return True
    return alike(numbered[0][0], numbered[1][0]) >= 0.6 or shared(*map(words, (one.path, other.path)))


def _named(families: tuple[dict[str, list[Node]], dict[str, list[Node]]], context: Context) -> list[NodePair]:
    """Pair members of different numbers, if their families have clearly similar names."""
    heads = [[members[0] for members in some.values()] for some in families]
    if max(map(len, heads)) > _MOST:
        return []
    pairs = []
    for a, b, reason in _assigned(heads[0], heads[1], context):
        if reason is not SIMILAR:
            continue
        ours, theirs = families[0][heads[0][a].pattern], families[1][heads[1][b].pattern]
        if len(ours) == len(theirs):
            pairs += _by_number(ours, theirs, context, SIMILAR if _only(heads, a, b) else MORE)
    return pairs


def _only(heads: Sequence[Sequence[Node]], a: int, b: int) -> bool:
    """Whether only these two of all members have a distinctive word in common."""
    said = [[words(node.path) for node in side] for side in heads]
    rivals = [(said[0][a], other) for n, other in enumerate(said[1]) if n != b]
    rivals += [(other, said[1][b]) for n, other in enumerate(said[0]) if n != a]
    return shared(said[0][a], said[1][b]) and not any(shared(*both) for both in rivals)


def _assigned(ours: Sequence[Node], theirs: Sequence[Node], context: Context) -> list[tuple[int, int, Reason]]:
    """Pair members by their words, in the order of certainty; those that remain, if equally many, by their order."""
    if len(ours) == 1 == len(theirs):
        return [(0, 0, SIMILAR)]
    likeness = _likeness(ours, theirs, context)
    evidence = _NameEvidence(ours, theirs, context)
    rows, columns = set(range(len(ours))), set(range(len(theirs)))
    found: dict[int, int] = {}
    certain: dict[int, int] = {}
    while rows and columns and (best := _clear(likeness, rows, columns)):
        rivals = {*range(len(ours))} - certain.keys(), {*range(len(theirs))} - {*certain.values()}
        certain |= {row: column for row, column in best.items() if evidence.distinguishes(row, column, *rivals)}
        found |= best
        rows -= best.keys()
        columns -= set(best.values())
    last = LAST if len(ours) == len(theirs) == len(certain) + 1 else VAGUE
    similar = [(a, b, SIMILAR if a in certain else last) for a, b in found.items()]
    if len(ours) != len(theirs):
        return similar
    if len(rows) == 1:
        return _completed(similar, rows.pop(), columns.pop(), likeness, any(map(_ordinal, (*ours, *theirs))))
    ordered = {}
    if rows and len(ours[0].entries) > LAYER:  # single layers are in any order: w1, w2, w3, or gate, up, down
        beside = [[float(context.neighbours(one, other)) for other in theirs] for one in ours]
        ordered = _clear(beside, rows, columns)
    left = zip(sorted(rows - ordered.keys()), sorted(columns - set(ordered.values())))
    return similar + [(a, b, ORDER) for a, b in [*ordered.items(), *left]]


class _NameEvidence:
    """What each member has in common with each member of the other side: words, and modules above them that correspond.

    A word that all members of the other side have does not count.
    """

    def __init__(self, ours: Sequence[Node], theirs: Sequence[Node], context: Context) -> None:
        rows, columns = ([_own_words(node) for node in side] for side in (ours, theirs))
        marks = [[context.marks(node, n) for node in side] for n, side in enumerate((ours, theirs))]
        told = _told(ours, theirs)
        said = (
            [[word for word in one if not _in_all(word, columns)] for one in rows],
            [[word for word in one if not _in_all(word, rows)] for one in columns],
        )
        self._sets: list[list[tuple[set[object], set[object]]]] = []
        for a, one in enumerate(ours):
            self._sets.append([])
            for b, other in enumerate(theirs):
                both: set[object] = {*(marks[0][a] & marks[1][b])}
                both |= {0} if id(one) in told[0] and told[0][id(one)] == told[1].get(id(other)) else set()
                same = [(x, y) for x in said[0][a] for y in said[1][b] if alike(x, y) >= 0.6]
                self._sets[-1].append((both | {x for x, _ in same}, both | {y for _, y in same}))

    def distinguishes(self, row: int, column: int, rows: set[int], columns: set[int]) -> bool:
        """Whether these two have everything in common that either has in common with any rival, and more."""
        ours, theirs = self._sets[row][column]
        return all(ours > self._sets[row][other][0] for other in columns - {column}) and all(
            theirs > self._sets[other][column][1] for other in rows - {row}
        )


def _own_words(node: Node) -> list[str]:
    """Return the telling words of a name, and a tensor's own word, such as `bias`."""
    said = words(node.path)
    return [*telling(said), *(said[-1:] if node.is_tensor else ())]


def _in_all(word: str, others: Sequence[Sequence[str]]) -> bool:
    return len(others) > 1 and all(any(alike(word, each) >= 0.6 for each in other) for other in others)


def _completed(
    found: list[tuple[int, int, Reason]], row: int, column: int, likeness: list[list[float]], by_order: bool
) -> list[tuple[int, int, Reason]]:
    """Add the last pair. Of two pairs of which only one has similar names, none is certain if the order does not agree.

    `by_order` says that names tell which is the first: then these are paired by their order, otherwise by the names.
    """
    alone = len(found) == 1 and max(map(max, likeness)) < _STRUCTURE
    disagree = likeness[row][column] < _SIMILAR and alone and row != column
    if disagree and by_order:
        return [(0, 0, CONFLICT), (1, 1, CONFLICT)]
    if disagree:
        return [*((a, b, CONFLICT) for a, b, _ in found), (row, column, CONFLICT)]
    return [*found, (row, column, LAST if all(reason.certain for _, _, reason in found) else VAGUE)]


def _clear(likeness: list[list[float]], rows: set[int], columns: set[int]) -> dict[int, int]:
    """Return the pairs that are clearly the best for both members."""
    best: dict[int, int] = {}
    for row in rows:
        order = sorted(columns, key=lambda column: -likeness[row][column])[:2]
        others = sorted((likeness[other][order[0]] for other in rows if other != row), reverse=True)[:1]
        others += [likeness[row][column] for column in order[1:]]
        value = likeness[row][order[0]]
        if value >= _SIMILAR and all(value - other >= _MARGIN for other in others):
            best[row] = order[0]
    return best


def _likeness(ours: Sequence[Node], theirs: Sequence[Node], context: Context) -> list[list[float]]:
    """Return how alike the names are, and the modules above them; a word counts less if more members have it."""
    both = (ours, theirs)
    said = [[words(node.path) for node in side] for side in both]
    above = [[context.marks(node, n) for node in side] for n, side in enumerate(both)]
    told = _told(ours, theirs)
    counts = [Counter(word for some in side for word in some) for side in said]
    marked = [Counter(mark for some in side for mark in some) for side in above]
    table = []
    for a, one in enumerate(ours):
        row = []
        for b, other in enumerate(theirs):
            value = sum(
                max((alike(x, y) / max(counts[0][x], counts[1][y]) for y in said[1][b]), default=0.0)
                for x in said[0][a]
            )
            shared_marks = above[0][a] & above[1][b]
            value += sum(_STRUCTURE / max(marked[0][mark], marked[1][mark]) for mark in shared_marks)
            row.append(value + (id(one) in told[0] and told[0][id(one)] == told[1].get(id(other))))
        table.append(row)
    common = min(map(min, table))  # what all names have in common does not tell them apart
    return [[value - common for value in row] for row in table]


def _told(ours: Sequence[Node], theirs: Sequence[Node]) -> tuple[dict[int, object], dict[int, object]]:
    """Return what the numbers in names say: their values, if both sides have the same, or the first and second of two."""
    if {node.numbers for node in ours} == {node.numbers for node in theirs}:
        return {id(n): n.numbers for n in ours}, {id(n): n.numbers for n in theirs}
    if len(ours) == 2 == len(theirs):
        return _ordinals(ours), _ordinals(theirs)
    return {}, {}


def _ordinals(two: Sequence[Node]) -> dict[int, object]:
    if two[0].pattern == two[1].pattern:
        return {id(node): which for node, which in zip(sorted(two, key=lambda n: n.numbers), ("first", "second"))}
    said = map(_ordinal, two)
    return {id(node): some.pop() for node, some in zip(two, said) if len(some) == 1}


def _ordinal(node: Node) -> set[str]:
    """Return whether the words of a path say that a module is the first or the second one."""
    return {ORDINALS[word] for word in (said.partition("-")[0] for said in words(node.path)) if word in ORDINALS}
