"""Make rules from pairs of names: one rule for what happens in every layer.

Rules are proposed from the pairs, and then every name is checked: if a rule gives a wrong name, more specific rules are put
before it. The resulting KeyMap renames exactly as the pairs say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from ._keymap import KeyMap
from ._rule import Rule
from ._template import Placeholder, Template, merged

_LETTERS = "ijklmn"


def folded_pairs(pairs: Iterable[tuple[str, str]]) -> Counter[str]:
    """Return the pairs as lines, folded over layers, with the number of pairs of each line, in order.

    >>> folded_pairs([("h.0.w", "layers.0.w"), ("h.1.w", "layers.1.w")])
    Counter({'h.{i}.w -> layers.{i}.w': 2})
    """
    return Counter(str(numbered(old, new)) for old, new in pairs)


def generalise(pairs: Mapping[str, str], others: Collection[str] = (), wanted: Collection[str] = ()) -> KeyMap:
    """Return a KeyMap with few rules that renames each name to its partner.

    `others` are names without a partner: they may be renamed, but not to the partner or the new name of another one, nor to
    one in `wanted`.

    >>> print(generalise({"h.0.ln.w": "layers.0.norm.w", "h.1.ln.w": "layers.1.norm.w"}))
    h.{i}.ln.{*p} -> layers.{i}.norm.{*p}
    """
    rules: list[Rule] = []
    stages: list[Callable[[str, str], Rule]] = [_literal, numbered, prefix_rule]
    taken = {*pairs.values(), *wanted}
    while wrong := _wrong(KeyMap(rules), pairs, others, taken):
        # A literal rule also renames the names below it, so the last stage may be needed again, for longer names.
        propose = stages.pop() if len(stages) > 1 else stages[0]
        rules = [*_chosen(propose(old, new) for old, new in wrong.items()), *rules]
    return KeyMap(_needed(rules, pairs, others, taken))


def _needed(rules: list[Rule], pairs: Mapping[str, str], others: Collection[str], taken: Collection[str]) -> list[Rule]:
    """Drop the rules that no name needs: those that never apply, and those that keep a name which no other rule changes."""
    index = KeyMap(rules).index
    hits = {name: hit.rule for name in (*pairs, *others) if (hit := index.find(name))}
    kept: set[int] = set()
    wrong = {old: new for old, new in pairs.items() if old != new}
    while wrong:
        kept |= {hits[name] for name in wrong}
        needed = [rules[number] for number in sorted(kept)]
        wrong = _wrong(KeyMap(needed), pairs, others, taken) if len(needed) < len(rules) else {}
    return [rules[number] for number in sorted(kept)]


def _wrong(
    key_map: KeyMap, pairs: Mapping[str, str], others: Collection[str], taken: Collection[str]
) -> dict[str, str]:
    """Return the names that the rules rename wrongly, with the correct new names."""
    wrong = {old: new for old, new in pairs.items() if key_map(old) != new}
    made = {name: key_map(name) for name in others if name not in pairs}
    shared = Counter(made.values())
    return wrong | {name: name for name, new in made.items() if new != name and (new in taken or shared[new] > 1)}


def _chosen(proposed: Iterable[Rule]) -> list[Rule]:
    """Return, for each left side, the right side that was proposed most often; more specific rules first."""
    votes: dict[tuple[Template, ...], Counter[Rule]] = {}
    for rule in proposed:
        votes.setdefault(rule.sources, Counter())[rule] += 1
    best = [counted.most_common(1)[0][0] for counted in votes.values()]
    return sorted(best, key=lambda rule: (-len(str(rule.sources[0]).split(".")), "*" in str(rule.sources[0])))


def prefix_rule(old: str, new: str) -> Rule:
    """Return the rule that replaces the beginning of one name by that of the other, with any common ending.

    >>> print(prefix_rule("h.3.ln.weight", "layers.3.norm.weight"))
    h.{i}.ln.{*p} -> layers.{i}.norm.{*p}
    """
    olds, news, tail = old.split("."), new.split("."), 0
    while tail < min(len(olds), len(news)) and olds[-1 - tail] == news[-1 - tail]:
        tail += 1
    if not tail:
        return numbered(old, new)
    return _rule(olds[: len(olds) - tail], news[: len(news) - tail], [Placeholder("p", True)])


def numbered(old: str, new: str) -> Rule:
    """Return the rule for two names with placeholders for their numbers."""
    return _rule(old.split("."), new.split("."), [])


def _literal(old: str, new: str) -> Rule:
    """Return the rule for exactly these two names."""
    return Rule((Template((old,)),), (Template((new,)),))


def _rule(olds: list[str], news: list[str], rest: list[Placeholder]) -> Rule:
    """Make a rule from components; the numbers that both names share, counted from the end, become placeholders."""
    sides = _with_placeholders([olds, news], rest)
    return Rule((sides[0],), (sides[1],))


def templates(olds: Sequence[str], news: Sequence[str]) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    """Return templates for the names of both sides of a rule, with placeholders for the numbers that all of them share.

    >>> old, new = templates(["h.3.q.w", "h.3.k.w"], ["layers.3.qk.w"])
    >>> [str(template) for template in (*old, *new)]
    ['h.{i}.q.w', 'h.{i}.k.w', 'layers.{i}.qk.w']
    """
    made = _with_placeholders([name.split(".") for name in (*olds, *news)], [])
    return tuple(made[: len(olds)]), tuple(made[len(olds) :])


def _with_placeholders(names: Sequence[list[str]], rest: list[Placeholder]) -> list[Template]:
    """Return a template for each name; the numbers that all share, counted from the end, become placeholders."""
    places = [[n for n, part in enumerate(parts) if part.isdecimal()] for parts in names]
    shared = 0
    while shared < min(map(len, places)) and len({p[n[-1 - shared]] for p, n in zip(names, places)}) == 1:
        shared += 1
    sides = []
    for parts, numbers in zip(names, places):
        placeholders = {
            place: Placeholder(_letter(n), False) for n, place in enumerate(numbers[len(numbers) - shared :])
        }
        components = [*(placeholders.get(n, part) for n, part in enumerate(parts)), *rest]
        dotted = (piece for n, part in enumerate(components) for piece in ((".", part) if n else (part,)))
        sides.append(Template(merged(dotted)))
    return sides


def _letter(number: int) -> str:
    turn, letter = divmod(number, len(_LETTERS))
    return _LETTERS[letter] + (str(turn) if turn else "")
