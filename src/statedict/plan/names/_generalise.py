"""From pairs of names to rules: what happens in every layer is said once.

Rules are proposed from the pairs, and then every name is checked: where the rules do not say what the pairs do, more
specific ones come before them. So the KeyMap that comes out does exactly what the pairs say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from ._keymap import KeyMap
from ._rule import Rule
from ._template import Hole, Template

_HOLES = "ijklmn"


def folded_pairs(pairs: Iterable[tuple[str, str]]) -> Counter[str]:
    """The pairs as lines, layers folded, with how many each stands for, in order.

    >>> folded_pairs([("h.0.w", "layers.0.w"), ("h.1.w", "layers.1.w")])
    Counter({'h.{i}.w -> layers.{i}.w': 2})
    """
    return Counter(str(numbered(old, new)) for old, new in pairs)


def generalise(pairs: Mapping[str, str], others: Iterable[str] = ()) -> KeyMap:
    """The KeyMap that takes each name to its partner, in as few rules as can be told from the pairs.

    `others` are names without a partner: they may go anywhere but to a partner of somebody else.

    >>> print(generalise({"h.0.ln.w": "layers.0.norm.w", "h.1.ln.w": "layers.1.norm.w"}))
    h.{i}.ln.{*p} -> layers.{i}.norm.{*p}
    """
    rules: list[Rule] = []
    stages: list[Callable[[str, str], Rule]] = [_literal, numbered, heads]
    while wrong := _wrong(KeyMap(rules), pairs, others):
        # A name alone also stands for what is below it, so the last stage may be needed again, for longer and longer names.
        propose = stages.pop() if len(stages) > 1 else stages[0]
        rules = [*_chosen(propose(old, new) for old, new in wrong.items()), *rules]
    return KeyMap(rules)


def _wrong(key_map: KeyMap, pairs: Mapping[str, str], others: Iterable[str]) -> dict[str, str]:
    """The names that the rules do not take where they should, and where that is."""
    wrong = {old: new for old, new in pairs.items() if key_map(old) != new}
    taken = set(pairs.values())
    return wrong | {
        name: name for name in others if name not in pairs and key_map(name) != name and key_map(name) in taken
    }


def _chosen(proposed: Iterable[Rule]) -> list[Rule]:
    """For each left side the right side that was proposed most often; the more specific first."""
    votes: dict[tuple[Template, ...], Counter[Rule]] = {}
    for rule in proposed:
        votes.setdefault(rule.sources, Counter())[rule] += 1
    best = [counted.most_common(1)[0][0] for counted in votes.values()]
    return sorted(best, key=lambda rule: (-len(str(rule.sources[0]).split(".")), "*" in str(rule.sources[0])))


def heads(old: str, new: str) -> Rule:
    """The rule that exchanges what the one name begins with for what the other does, whatever is below it.

    >>> print(heads("h.3.ln.weight", "layers.3.norm.weight"))
    h.{i}.ln.{*p} -> layers.{i}.norm.{*p}
    """
    olds, news, tail = old.split("."), new.split("."), 0
    while tail < min(len(olds), len(news)) and olds[-1 - tail] == news[-1 - tail]:
        tail += 1
    if not tail:
        return numbered(old, new)
    return _rule(olds[: len(olds) - tail], news[: len(news) - tail], [Hole("p", True)])


def numbered(old: str, new: str) -> Rule:
    """The names with their numbers left open."""
    return _rule(old.split("."), new.split("."), [])


def _literal(old: str, new: str) -> Rule:
    """The names themselves."""
    return Rule((Template((old,)),), (Template((new,)),))


def _rule(olds: list[str], news: list[str], rest: list[Hole]) -> Rule:
    """A rule from components; the numbers that both have, counted from the end, become holes."""
    places = [[n for n, part in enumerate(parts) if part.isdecimal()] for parts in (olds, news)]
    shared = 0
    while shared < min(map(len, places)) and olds[places[0][-1 - shared]] == news[places[1][-1 - shared]]:
        shared += 1
    sides = []
    for parts, numbers in zip((olds, news), places):
        holes = {place: Hole(_hole(n), False) for n, place in enumerate(numbers[len(numbers) - shared :])}
        sides.append(_template([*(holes.get(n, part) for n, part in enumerate(parts)), *rest]))
    return Rule((sides[0],), (sides[1],))


def _hole(number: int) -> str:
    turn, letter = divmod(number, len(_HOLES))
    return _HOLES[letter] + (str(turn) if turn else "")


def _template(parts: list[str | Hole]) -> Template:
    """Components joined by dots."""
    merged: list[str | Hole] = []
    for n, part in enumerate(parts):
        for piece in (["."] if n else []) + [part]:
            if isinstance(piece, str) and merged and isinstance(merged[-1], str):
                merged[-1] += piece
            elif piece:
                merged.append(piece)
    return Template(tuple(merged))
