"""Find the first rule of a KeyMap that matches a name, without trying one rule after the other.

Templates without placeholders are looked up in a dict. The others are joined into regular expressions, so that they are
searched in C: a single one if there are few of them, else one for each component (the anchor) that its templates share.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from statedict.errors import NotAStateError
from statedict.state import parents

from ._rule import AnyRule, Escape, Rule
from ._template import Placeholder, Template

# A component of a name with its position: 0, 1 … from the start, or -1, -2 … from the end.
Anchor = tuple[int, str]
# Up to this number, one expression for all templates is faster than looking up the components of a name.
_FEW = 32


class Hit(NamedTuple):
    """A name matches source number `position` of rule number `rule`; `placeholders` are the values of its placeholders.

    `new` is the new name if the rule does not have a template for it: renamed by a module rule, a regular expression or a
    function."""

    rule: int
    position: int
    placeholders: Mapping[str, str]
    new: str | None = None


class Index:
    """The rules of a KeyMap, indexed for `find`."""

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
                    self._groups[group] = (
                        number,
                        position,
                        [(placeholder, f"{group}_{placeholder}") for placeholder in template.placeholders],
                    )
                    templates[group] = template
                else:
                    self._exact.setdefault(template.literal, Hit(number, position, {}))
            self._add_module(number, rule)
        self._by_anchor = _by_anchor(templates)
        self._compiled: dict[Anchor | None, re.Pattern[str]] = {}

    def _add_module(self, number: int, rule: Rule) -> None:
        if not rule.operations and (old := rule.sources[0].literal) and (new := rule.targets[0].literal):
            self._modules.setdefault(old, (number, new))
            self._heads.add(old.partition(".")[0])

    def find(self, name: str) -> Hit | None:
        """Return the first rule that matches the name."""
        best = self._exact.get(name) if self._exact else None
        for hit in (self._in_module(name), self._fitting(name)):
            if hit is not None and (best is None or hit.rule < best.rule):
                best = hit
        for number, escape in self._escapes:
            if best is not None and best.rule < number:
                break
            new = escape.function(name)
            if not isinstance(new, str):
                raise NotAStateError(f"'{escape}' must return a string for {name!r}, not {new!r}")
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
        hits = [hit for anchor in self._anchors_of(name) if (hit := self._with_anchor(anchor, name))]
        return min(hits, key=lambda hit: (hit.rule, hit.position), default=None)

    def _anchors_of(self, name: str) -> list[Anchor | None]:
        """Return the anchors whose templates may match the name."""
        known = self._by_anchor
        anchors: list[Anchor | None] = [None] if None in known else []
        if len(known) > len(anchors):
            parts = name.split(".")
            anchors += filter(known.__contains__, enumerate(parts))
            anchors += filter(known.__contains__, enumerate(parts, -len(parts)))
        return anchors

    def _with_anchor(self, anchor: Anchor | None, name: str) -> Hit | None:
        pattern = self._compiled.get(anchor)
        if pattern is None:
            texts = (
                f"(?P<{group}>{template.regex(f'{group}_')})" for group, template in self._by_anchor[anchor].items()
            )
            pattern = self._compiled[anchor] = re.compile("|".join(texts), re.DOTALL)
        found = pattern.fullmatch(name)
        if found is None:
            return None
        # The outermost group closes last, so `lastgroup` names the template that matched.
        number, position, placeholders = self._groups[str(found.lastgroup)]
        return Hit(number, position, {placeholder: found[group] for placeholder, group in placeholders})


def _by_anchor(templates: Mapping[str, Template]) -> dict[Anchor | None, dict[str, Template]]:
    """Group the templates by the rarest component that each requires; None: all if they are few, or those without one."""
    if len(templates) <= _FEW:
        return {None: dict(templates)} if templates else {}
    anchors = {group: _anchors(template) for group, template in templates.items()}
    counts = Counter(anchor for some in anchors.values() for anchor in some)
    grouped: dict[Anchor | None, dict[str, Template]] = {}
    for group, template in templates.items():
        anchor = min(anchors[group], key=counts.__getitem__, default=None)
        grouped.setdefault(anchor, {})[group] = template
    return grouped


def _anchors(template: Template) -> list[Anchor]:
    """Return the components that every matching name has: position (from the end after a deep placeholder) and text."""
    components: list[str | None] = [""]
    deep: list[int] = []
    for part in template.parts:
        if isinstance(part, Placeholder):
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
