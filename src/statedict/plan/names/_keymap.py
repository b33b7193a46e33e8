"""KeyMap: an ordered list of rules that rename the tensors of a state.

A KeyMap is a value: it can be printed, saved as text, inverted, and applied to a name or to a whole state. The first rule
that matches a name is used; names that do not match any rule are unchanged. `_rule` has the grammar of a rule.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from statedict.errors import CollisionError
from statedict.state import StateDict, arguments, as_html, check_names, listed, raw_values

from ...errors import printable
from ..operations._specs import spec_of
from ._index import Index
from ._recipe import Evaluator, moved_metadata, sources_of
from ._resolve import Resolved, SpecOf, renamed, resolve
from ._rule import AnyRule, Escape, Rule, pairs, parse
from ._wrappers import bare

# The number of rules that a notebook shows.
_RULES = 100


class KeyMap:
    """An ordered list of renaming rules; the first rule that matches a name is used.

    `rules` is text (one rule per line, `#` starts a comment line), a mapping from old to new templates, a function of a
    name, another KeyMap, or a list of any of these. Raises ValueError, with the rule, if one is not valid. A rule that does
    not match any name is reported, unless the map is `optional`: written for all models of a family, for example.

    >>> names = KeyMap("transformer.h.{i}.ln_1.{*p} -> layers.{i}.norm1.{*p}")
    >>> names("transformer.h.3.ln_1.weight")
    'layers.3.norm1.weight'
    >>> print(names.inverse)
    layers.{i}.norm1.{*p} -> transformer.h.{i}.ln_1.{*p}
    """

    def __init__(self, rules: Any = None, *, optional: bool = False) -> None:
        self.rules: tuple[AnyRule, ...] = tuple(_rules(rules))
        self.optional: bool = optional or (isinstance(rules, KeyMap) and rules.optional)

    @classmethod
    def from_toml(cls, text: str) -> KeyMap:
        """Read the KeyMap that `to_toml` wrote; raises ValueError if the text is not valid."""
        import tomllib

        arguments.texts(text=text)
        try:
            rules = tomllib.loads(text).get("rules")
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"the text of a key map is not valid TOML: {error}") from None
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
            raise ValueError('expected a TOML list rules = ["OLD -> NEW", …]')
        return cls(rules)

    def to_toml(self) -> str:
        """Return the rules as TOML; raises ValueError for a function, or for a name that the grammar cannot express.

        >>> print(KeyMap("a.{i} -> b.{i}").to_toml())
        rules = [
            "a.{i} -> b.{i}",
        ]
        <BLANKLINE>
        """
        for rule in self.rules:
            if not _writable(rule):
                raise ValueError(f"'{rule}' cannot be saved as text: write it as OLD -> NEW with '{{i}}' and '{{*p}}'")
        return "".join(["rules = [\n", *(f"    {_quoted(rule.line)},\n" for rule in self.rules), "]\n"])

    def __str__(self) -> str:
        return "\n".join(map(str, self.rules))

    def __repr__(self) -> str:
        return f"KeyMap({[rule.line for rule in self.rules]})"

    def _repr_html_(self) -> str:
        counted = f"KeyMap: {len(self):,} rule{'' if len(self) == 1 else 's'}"
        return as_html(counted, [listed("the first that matches a name is used", map(str, self.rules), _RULES)])

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
        """Return the new name; raises ValueError if the rule also converts the tensor (see `rename`)."""
        arguments.texts(name=name)
        hit = self.index.find(name)
        if hit is None:
            return name
        rule = self.rules[hit.rule]
        if isinstance(rule, Rule) and rule.operations:
            raise ValueError(
                f"'{rule}' also converts the tensor {name!r}: apply it to the whole state, key_map.rename(state)"
            )
        return renamed(rule, hit)

    @property
    def invertible(self) -> bool:
        """Whether every rule has an exact inverse."""
        return all(rule.obstacle is None for rule in self.rules)

    @cached_property
    def inverse(self) -> KeyMap:
        """The KeyMap that undoes this one, including conversions; raises ValueError if a rule does not have an inverse.

        If two rules could have produced a name, the more specific one is undone. `strays` lists the names for which this is
        wrong.
        """
        inverse = KeyMap(sorted((rule.inverse() for rule in self.rules), key=_vagueness), optional=self.optional)
        inverse.__dict__["inverse"] = self
        return inverse

    def rename(self, state: Mapping[str, Any]) -> StateDict:
        """Return the state under its new names, with `_metadata`; tensors are converted when they are read.

        Raises CollisionError if two tensors would get the same name, ValueError if a tensor does not fit its rule. Issues a
        UserWarning for a rule that does not match any name, or for which a tensor is missing.

        >>> fused = KeyMap("{l}.{q,k,v}.weight -> {l}.qkv.weight | cat 0").rename(
        ...     {f"0.{part}.weight": np.full((2, 3), n) for n, part in enumerate("qkv")})
        >>> fused.spec("0.qkv.weight").shape, fused.numpy()["0.qkv.weight"][:, 0].tolist()
        ((6, 3), [0, 0, 1, 1, 2, 2])
        """
        given = self._given(state)
        return self._renamed(state, {name: name for name in given}, given)

    @staticmethod
    def _given(state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values of a state by name; raises NotAStateError if a name is not a string."""
        arguments.mappings(state=state)
        given = raw_values(state)
        check_names(given)
        return given

    def _renamed(self, state: Mapping[str, Any], names: Mapping[str, str], given: Mapping[str, Any]) -> StateDict:
        """Return the renamed state; `names` maps each name that the rules see to the state's own."""
        offers, notes = self.resolve(names, lambda name: spec_of(given[name]))
        for note in notes:
            warnings.warn(printable(note), UserWarning, stacklevel=3)
        evaluator = Evaluator(given)
        values = {name: evaluator.offered(offer) for name, offer in offers.items()}
        moves = ((name, sources_of(offer)) for name, offer in offers.items())
        metadata = moved_metadata(getattr(state, "_metadata", None), moves)
        new = StateDict.adopt(values, metadata, getattr(state, "_backend", "auto"))
        new.texts = getattr(state, "texts", None)
        return new

    def resolve(self, names: Mapping[str, str], spec: SpecOf) -> Resolved:
        """Apply the rules to `names` (from the name that rules see to the source's own); `spec` returns a source's Spec."""
        return resolve(self.rules, self.index, names, spec, unused=not self.optional)

    def seen(self, names: Iterable[str]) -> dict[str, str]:
        """Return a mapping from the name that the rules see to the state's own name.

        They differ if only the name without wrappers (`module.`, `_orig_mod.` …) matches a rule. Raises CollisionError if
        two names differ in their wrappers only.

        >>> KeyMap("a.{*p} -> b.{*p}").seen(["_orig_mod.a.weight", "_orig_mod.c.weight"])
        {'a.weight': '_orig_mod.a.weight', '_orig_mod.c.weight': '_orig_mod.c.weight'}
        """
        seen: dict[str, str] = {}
        for name in names:
            without = bare(name)
            shown = without if without != name and not self.index.find(name) and self.index.find(without) else name
            if shown in seen:
                raise CollisionError(shown, (seen[shown], name))
            seen[shown] = name
        return seen

    def strays(self, names: Iterable[str]) -> list[str]:
        """Return the names that `inverse` would not restore; empty for most maps.

        >>> KeyMap("a.{i} -> c.{i}").strays(["a.0", "c.1"])  # c.1 is not renamed, but its inverse would be a.1
        ['c.1']
        """
        strays = []
        for name in arguments.patterns("names", names) or ():
            hit = self.index.find(name)
            if hit is None or not isinstance(rule := self.rules[hit.rule], Rule) or not rule.operations:
                back = self.inverse.index.find(self(name))
                there = name if back is None else renamed(self.inverse.rules[back.rule], back)
                if there != name:
                    strays.append(name)
        return strays


def _rules(given: Any) -> list[AnyRule]:
    """Return the rules in any of the accepted forms (see KeyMap)."""
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
                raise TypeError(f"old and new names must be strings, not {arguments.described(name)}")
        return [rule for old, new in given.items() for rule in pairs(old, new)]
    if callable(given) and not isinstance(given, type):
        return [Escape(given)]
    if not isinstance(given, (list, tuple, Iterator)):
        raise TypeError(
            "rules must be text such as 'old -> new', a mapping from old to new names, a function of a name, or a list of "
            f"these, not {arguments.described(given)}"
        )
    return [rule for part in given for rule in _rules(part)]


def _vagueness(rule: Rule) -> tuple[bool, int, int]:
    """Return a sort key that puts specific rules first: no deep placeholder, few placeholders, much literal text."""
    placeholders = [part for part in rule.sources[0].parts if not isinstance(part, str)]
    literal = sum(len(part) for part in rule.sources[0].parts if isinstance(part, str))
    return any(placeholder.deep for placeholder in placeholders), len(placeholders), -literal


def _writable(rule: AnyRule) -> bool:
    """Whether the text of a rule parses to the same rule."""
    if isinstance(rule, Escape):
        return rule.text is not None
    try:
        return parse(rule.line) == [rule]
    except ValueError:
        return False


def _quoted(text: str) -> str:
    """Return the text as a TOML basic string."""
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'
