"""Which rule of a KeyMap a name belongs to: the first that fits, found without trying one after the other.

Names without holes are looked up in a dict. Templates are joined to regular expressions, so that the search through them is
done in C: all of them to one where they are few; else those to one that have a component in common, of which a name has few.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from statedict.errors import NotAStateError
from statedict.state import parents

from ._rule import AnyRule, Escape, Rule
from ._template import Hole, Template

# A component of a name, and its place: from 0 on, or before the end from -1 on.
Anchor = tuple[int, str]
# So many templates are searched in one expression: looking at a name's components would take longer.
_FEW = 32


class Hit(NamedTuple):
    """A name belongs to rule number `rule`, as its source number `position`; `holes` are the values of its holes.

    `new` is what it becomes where the rule has no template for that: a module's or an escape hatch's."""

    rule: int
    position: int
    holes: Mapping[str, str]
    new: str | None = None


class Index:
    """The rules, ready to be asked."""

    def __init__(self, rules: Sequence[AnyRule]) -> None:
        self._exact: dict[str, Hit] = {}
        self._modules: dict[str, tuple[int, str]] = {}
        self._heads: set[str] = set()
        self._escapes: list[tuple[int, Escape]] = []
        self._groups: dict[str, tuple[int, int, list[tuple[str, str]]]] = {}
        templates: dict[str, Template] = {}
        for number, rule in enumerate(rules):
            if isinstance(rule, Escape):
                self._escapes.append((number, rule))
                continue
            for position, template in enumerate(rule.sources):
                if template.literal is None:
                    group = f"r{number}_{position}"
                    self._groups[group] = (number, position, [(hole, f"{group}_{hole}") for hole in template.holes])
                    templates[group] = template
                else:
                    self._exact.setdefault(template.literal, Hit(number, position, {}))
            self._add_module(number, rule)
        self._shelves = _shelves(templates)
        self._compiled: dict[Anchor | None, re.Pattern[str]] = {}

    def _add_module(self, number: int, rule: Rule) -> None:
        if rule.renames_only and (old := rule.sources[0].literal) and (new := rule.targets[0].literal):
            self._modules.setdefault(old, (number, new))
            self._heads.add(old.partition(".")[0])

    def find(self, name: str) -> Hit | None:
        """The first rule that the name belongs to."""
        best = self._exact.get(name) if self._exact else None
        for hit in (self._in_module(name), self._fitting(name)):
            if hit is not None and (best is None or hit.rule < best.rule):
                best = hit
        for number, escape in self._escapes:
            if best is not None and best.rule < number:
                break
            new = escape.function(name)
            if not isinstance(new, str):
                raise NotAStateError(f"'{escape}' must give a name for {name!r}, not {new!r}")
            if new != name:
                return Hit(number, 0, {}, new)
        return best

    def _in_module(self, name: str) -> Hit | None:
        if not self._heads or name.partition(".")[0] not in self._heads:
            return None
        found = [(*self._modules[path], path) for path in parents(name) if path in self._modules]
        if not found:
            return None
        number, new, path = min(found)
        return Hit(number, 0, {}, new + name[len(path) :])

    def _fitting(self, name: str) -> Hit | None:
        hits = [hit for anchor in self._anchors_of(name) if (hit := self._on_shelf(anchor, name))]
        return min(hits, key=lambda hit: (hit.rule, hit.position), default=None)

    def _anchors_of(self, name: str) -> list[Anchor | None]:
        """Where templates that fit the name may be."""
        shelves = self._shelves
        anchors: list[Anchor | None] = [None] if None in shelves else []
        if len(shelves) > len(anchors):
            parts = name.split(".")
            anchors += filter(shelves.__contains__, enumerate(parts))
            anchors += filter(shelves.__contains__, enumerate(parts, -len(parts)))
        return anchors

    def _on_shelf(self, anchor: Anchor | None, name: str) -> Hit | None:
        pattern = self._compiled.get(anchor)
        if pattern is None:
            texts = (f"(?P<{group}>{template.regex(f'{group}_')})" for group, template in self._shelves[anchor].items())
            pattern = self._compiled[anchor] = re.compile("|".join(texts), re.DOTALL)
        found = pattern.fullmatch(name)
        if found is None:
            return None
        # The outermost group is the one that closes last, so it is the template that fitted.
        number, position, holes = self._groups[str(found.lastgroup)]
        return Hit(number, position, {hole: found[group] for hole, group in holes})


def _shelves(templates: Mapping[str, Template]) -> dict[Anchor | None, dict[str, Template]]:
    """The templates by a component that they ask for, the rarest of each; under None those that ask for none, or all."""
    if len(templates) <= _FEW:
        return {None: dict(templates)} if templates else {}
    anchors = {group: _anchors(template) for group, template in templates.items()}
    often = Counter(anchor for some in anchors.values() for anchor in some)
    shelves: dict[Anchor | None, dict[str, Template]] = {}
    for group, template in templates.items():
        anchor = min(anchors[group], key=often.__getitem__, default=None)
        shelves.setdefault(anchor, {})[group] = template
    return shelves


def _anchors(template: Template) -> list[Anchor]:
    """The components that every name has that fits: as place, counted from the end after a deep hole, and text."""
    components: list[str | None] = [""]
    deep: list[int] = []
    for part in template.parts:
        if isinstance(part, Hole):
            components[-1] = None
            deep += [len(components) - 1] * part.deep
        else:
            first, *others = part.split(".")
            if components[-1] is not None:
                components[-1] += first
            components += others
    end = deep[0] if deep else len(components)
    start = deep[-1] + 1 if deep else len(components)
    places = [*enumerate(components[:end]), *enumerate(components[start:], start - len(components))]
    return [(place, text) for place, text in places if text is not None]
