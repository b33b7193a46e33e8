"""KeyMap: how the names of one state become those of another, as an ordered list of rules.

A KeyMap is a value: it can be printed, saved as text, inverted, and applied to a name or to a whole state. The first rule
that fits a name is the one that counts; names that none fits stay as they are. `_rule` has the grammar of a rule.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from statedict.errors import NotAStateError
from statedict.state import StateDict, arguments, raw_values

from ...errors import printable
from ..operations._facts import spec_of
from ._compute import Cook
from ._index import Index
from ._recipe import moved_metadata, sources_of
from ._resolve import Resolved, SpecOf, renamed, resolve
from ._rule import AnyRule, Escape, Rule, pairs, parse


class KeyMap:
    """An ordered list of rules.

    `rules` is text (one rule a line, `#` begins a comment), a mapping of old to new templates, a function of a name,
    another KeyMap, or a list of any of these. Raises ValueError, quoting the rule, where one cannot be understood.

    >>> names = KeyMap("transformer.h.{i}.ln_1.{*p} -> layers.{i}.norm1.{*p}")
    >>> names("transformer.h.3.ln_1.weight")
    'layers.3.norm1.weight'
    >>> print(names.inverse)
    layers.{i}.norm1.{*p} -> transformer.h.{i}.ln_1.{*p}
    """

    def __init__(self, rules: Any = None) -> None:
        self.rules: tuple[AnyRule, ...] = tuple(_rules(rules))

    @classmethod
    def from_toml(cls, text: str) -> KeyMap:
        """The KeyMap that `to_toml` wrote; ValueError where the text is none."""
        import tomllib

        arguments.texts(text=text)
        try:
            rules = tomllib.loads(text).get("rules")
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"a key map is TOML, and this is not: {error}") from None
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
            raise ValueError('a key map in TOML is rules = ["OLD -> NEW", …], but there is no such list')
        return cls(rules)

    def to_toml(self) -> str:
        """The rules as TOML; ValueError where one is a function, or renames a name that the grammar cannot write.

        >>> print(KeyMap("a.{i} -> b.{i}").to_toml())
        rules = [
            "a.{i} -> b.{i}",
        ]
        <BLANKLINE>
        """
        for rule in self.rules:
            if not _writable(rule):
                raise ValueError(f"'{rule}' cannot be written down; write it with templates")
        return "".join(["rules = [\n", *(f"    {_quoted(rule.line)},\n" for rule in self.rules), "]\n"])

    def __str__(self) -> str:
        return "\n".join(map(str, self.rules))

    def __repr__(self) -> str:
        return f"KeyMap({[rule.line for rule in self.rules]})"

    def __eq__(self, other: object) -> bool:
        return self.rules == other.rules if isinstance(other, KeyMap) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    @cached_property
    def index(self) -> Index:
        return Index(self.rules)

    def __call__(self, name: str) -> str:
        """The new name; ValueError for a name whose tensor is converted too, which `rename` does to a whole state."""
        arguments.texts(name=name)
        hit = self.index.find(name)
        if hit is None:
            return name
        rule = self.rules[hit.rule]
        if isinstance(rule, Rule) and not rule.renames_only:
            raise ValueError(
                f"'{rule}' does more than rename {name!r}; apply it to the whole state: key_map.rename(state)"
            )
        return renamed(rule, hit)

    @property
    def invertible(self) -> bool:
        """Whether every rule has an exact inverse."""
        return all(rule.obstacle is None for rule in self.rules)

    @cached_property
    def inverse(self) -> KeyMap:
        """The KeyMap that undoes this one, tensors included; ValueError, saying which rule and why, where there is none.

        Where two rules could both have made a name, the more specific one is undone. `strays` tells whether that leaves a
        doubt for the names of some state.
        """
        inverse = KeyMap(sorted((rule.inverse() for rule in self.rules), key=_vagueness))
        inverse.__dict__["inverse"] = self
        return inverse

    def rename(self, state: Mapping[str, Any]) -> StateDict:
        """The state under its new names, its tensors converted when they are read, `_metadata` following.

        Raises CollisionError where two sources would get one name, ValueError where a tensor does not fit its rule. A rule
        that fits no name, or lacks one of its tensors, gives a UserWarning.

        >>> import numpy as np
        >>> fused = KeyMap("{l}.{q,k,v}.weight -> {l}.qkv.weight | cat 0").rename(
        ...     {f"0.{part}.weight": np.full((2, 3), n) for n, part in enumerate("qkv")})
        >>> fused.spec("0.qkv.weight").shape, fused.numpy()["0.qkv.weight"][:, 0].tolist()
        ((6, 3), [0, 0, 1, 1, 2, 2])
        """
        arguments.mappings(state=state)
        given = raw_values(state)
        for name in given:
            if not isinstance(name, str):
                raise NotAStateError(f"a state dict's names are strings, but this one has {arguments.described(name)}")
        offers, notes = self.resolve({name: name for name in given}, lambda name: spec_of(given[name]))
        for note in notes:
            warnings.warn(printable(note), UserWarning, stacklevel=2)
        cook = Cook(given)
        values = {name: cook.offered(offer) for name, offer in offers.items()}
        moves = ((name, sources_of(offer)) for name, offer in offers.items())
        metadata = moved_metadata(getattr(state, "_metadata", None), moves)
        new = StateDict.adopt(values, metadata, getattr(state, "_backend", "auto"))
        new.texts = getattr(state, "texts", None)
        return new

    def resolve(self, names: Mapping[str, str], spec: SpecOf) -> Resolved:
        """What becomes of `names` (as the rules see them, to the source's own); `spec` tells what is known of a source."""
        return resolve(self.rules, self.index, names, spec)

    def strays(self, names: Iterable[str]) -> list[str]:
        """The names that `inverse` would not bring back where they were, tensors left aside; none for most maps.

        >>> KeyMap("a.{i} -> c.{i}").strays(["a.0", "c.1"])  # c.1 stays c.1, and would come back as a.1
        ['c.1']
        """
        strays = []
        for name in arguments.patterns("names", names) or ():
            hit = self.index.find(name)
            if hit is None or not isinstance(rule := self.rules[hit.rule], Rule) or rule.renames_only:
                back = self.inverse.index.find(self(name))
                there = name if back is None else renamed(self.inverse.rules[back.rule], back)
                strays += [name] * (there != name)
        return strays


def _rules(given: Any) -> list[AnyRule]:
    """The rules of everything that people write rules as."""
    if given is None:
        return []
    if isinstance(given, KeyMap):
        return list(given.rules)
    if isinstance(given, (Rule, Escape)):
        return [given]
    if isinstance(given, str):
        lines = (line.strip() for line in given.splitlines())
        return [rule for line in lines if line and not line.startswith("#") for rule in parse(line)]
    if isinstance(given, Mapping):
        for name in (*given, *given.values()):
            if not isinstance(name, str):
                raise TypeError(f"names that are renamed are text, not {arguments.described(name)}")
        return [rule for old, new in given.items() for rule in pairs(old, new)]
    if callable(given) and not isinstance(given, type):
        return [Escape(given)]
    if not isinstance(given, (list, tuple, Iterator)):
        raise TypeError(
            "rules are text such as 'old -> new', a mapping of old names to new ones, a function of a name, or a list of "
            f"these, not {arguments.described(given)}"
        )
    return [rule for part in given for rule in _rules(part)]


def _vagueness(rule: Rule) -> tuple[bool, int, int]:
    """Sorts specific rules first: without a deep hole, with few holes, with much literal text."""
    holes = [part for part in rule.sources[0].parts if not isinstance(part, str)]
    literal = sum(len(part) for part in rule.sources[0].parts if isinstance(part, str))
    return any(hole.deep for hole in holes), len(holes), -literal


def _writable(rule: AnyRule) -> bool:
    """Whether its text says just this rule."""
    if isinstance(rule, Escape):
        return rule.text is not None
    try:
        return parse(rule.line) == [rule]
    except ValueError:
        return False


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'
