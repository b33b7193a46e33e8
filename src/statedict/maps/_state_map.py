"""StateMap: a KeyMap between two named implementations, which reports the names that no rule matches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from statedict.errors import MapError
from statedict.plan import KeyMap, Resolved, SpecOf
from statedict.state import StateDict, matcher

from ..errors import printable
from ._map_file import MapFile

_FEW = 5


class StateMap(KeyMap):
    """A KeyMap from a map's file, with numbers for its parameters.

    It can be used wherever renaming rules can: `load_state_dict(…, rename=map)`. A tensor that the map ignores is left out,
    and reported with the reason. `rename` also reports the names that no rule matches; they are kept unchanged.

    Attributes:
        file: the MapFile: description, source, versions.
        values: the numbers of the parameters.
        left, right: the implementations that it converts from, and to.
        inverted: whether it was made by `inverse`.

    >>> from statedict import maps
    >>> found = maps.load("llama-hf", head_dim=64)
    >>> found.right, found.values, found.invertible
    ('transformers', {'head_dim': 64}, True)
    """

    def __init__(self, file: MapFile, values: Mapping[str, int]) -> None:
        super().__init__([line.bound(values) for line in file.rules], optional=file.complete)
        self.file = file
        self.values = dict(values)
        self.left, self.right = file.left, file.right
        self.inverted = False

    @cached_property
    def inverse(self) -> StateMap:
        """The map in the other direction; raises MapError, with the reason, if it does not have one."""
        reason = self.file.obstacle
        if reason is not None:
            raise MapError(self.file.name, None, f"it converts in one direction only: {reason}")
        back = super().inverse
        inverse = StateMap(self.file, self.values)
        inverse.rules, inverse.left, inverse.right = back.rules, self.right, self.left
        inverse.inverted = not self.inverted
        inverse.__dict__["inverse"] = self
        return inverse

    @property
    def invertible(self) -> bool:
        """Whether there is a map in the other direction."""
        return self.file.obstacle is None

    def extended(self, rules: Any) -> StateMap:
        """Return this map with further rules after its own."""
        more = StateMap(self.file, self.values)
        more.rules, more.left, more.right = (*self.rules, *KeyMap(rules).rules), self.left, self.right
        more.inverted = self.inverted
        return more

    def resolve(self, names: Mapping[str, str], spec: SpecOf) -> Resolved:
        """Apply the rules, as KeyMap does, to the names that the map does not ignore."""
        reasons = self.ignored(names)
        offers, notes = super().resolve({name: own for name, own in names.items() if name not in reasons}, spec)
        found: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            found.setdefault(reason, []).append(name)
        notes = [*notes, *(f"{self.file.name} leaves out {_listed(some)}: {reason}" for reason, some in found.items())]
        return Resolved(offers, notes)

    def rename(self, state: Mapping[str, Any]) -> StateDict:
        """Return the converted state, as KeyMap does; names may have the prefixes of wrappers (`module.`, `_orig_mod.`).

        Issues a UserWarning for names that are left out, and for those that no rule matches. Raises MapError if no rule
        matches any name.
        """
        given = self._given(state)
        names = self.seen(given)
        unknown = self.unknown(given)
        if self.file.complete and unknown:
            if len(unknown) + len(self.ignored(names)) == len(given):
                raise MapError(self.file.name, None, self._refusal(unknown))
            text = f"{self.file.name} does not have a rule for {_listed(unknown)}; unchanged"
            warnings.warn(printable(text), UserWarning, stacklevel=2)
        return self._renamed(state, names, given)

    def ignored(self, names: Iterable[str]) -> dict[str, str]:
        """Return the names that the map leaves out, each with the reason."""
        return {name: reason for name in names for fits, reason in reversed(self._ignored) if fits(name)}

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Return the names that no rule matches and that the map does not ignore."""
        seen = self.seen(names)
        reasons = self.ignored(seen)
        return [name for shown, name in seen.items() if shown not in reasons and not self.index.find(shown)]

    @cached_property
    def _ignored(self) -> list[tuple[Any, str]]:
        return [(matcher(pattern), reason) for pattern, reason in self.file.ignored.items()]

    def _refusal(self, names: list[str]) -> str:
        """Say why the map does not apply to any of these names."""
        if self.invertible and 2 * len(self.inverse.unknown(names)) < len(names):
            there = "add --inverse on the command line, or use its .inverse in Python"
            return f"these are the names of {self.right}, not of {self.left}: {there}"
        return f"no rule matches any of {_listed(names)}; it converts the names of {self.left or 'its rules'}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_FEW])) + (", …" if len(names) > _FEW else "")
    return f"{len(names):,} {'tensor' if len(names) == 1 else 'tensors'} ({shown})"
