"""Which rule of a KeyMap a name belongs to: the first that fits, found without trying one after the other.

Names without holes are looked up in a dict; all templates together are one regular expression, so that the search through
them is done in C.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from statedict.errors import NotAStateError
from statedict.state import parents

from ._rule import AnyRule, Escape, Rule


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
        open_ones: list[str] = []
        for number, rule in enumerate(rules):
            if isinstance(rule, Escape):
                self._escapes.append((number, rule))
                continue
            for position, template in enumerate(rule.sources):
                if template.literal is None:
                    group = f"r{number}_{position}"
                    self._groups[group] = (number, position, [(hole, f"{group}_{hole}") for hole in template.holes])
                    open_ones.append(f"(?P<{group}>{template.regex(f'{group}_')})")
                else:
                    self._exact.setdefault(template.literal, Hit(number, position, {}))
            self._add_module(number, rule)
        self._open = re.compile("|".join(open_ones), re.DOTALL) if open_ones else None

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
        found = self._open.fullmatch(name) if self._open else None
        if found is None:
            return None
        # The outermost group is the one that closes last, so it is the template that fitted.
        number, position, holes = self._groups[str(found.lastgroup)]
        return Hit(number, position, {hole: found[group] for hole, group in holes})
