"""Find the maps that convert the names of one state into those of another, without reading a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from statedict.plan import Rule

from ._library import names, read
from ._state_map import StateMap

# A map that places none of so many names, evenly spaced, is not tried on the rest: 50,000 names would take 14 seconds.
_SOME = 64


class MapFit(NamedTuple):
    """How well a map of the package fits two states.

    Attributes:
        name: of the map.
        inverse: whether its inverse is meant.
        placed: the number of target names that it produces.
        total: the number of target names.
        unknown: source names that it neither converts nor ignores.
        parameters: what the map needs besides the states.
    """

    name: str
    inverse: bool
    placed: int
    total: int
    unknown: tuple[str, ...]
    parameters: tuple[str, ...]

    def __str__(self) -> str:
        options = " --inverse" * self.inverse + "".join(f" --param {name}=N" for name in self.parameters)
        unknown = f", {len(self.unknown):,} checkpoint tensors without a rule" if self.unknown else ""
        return f"--map {self.name}{options}: {self.placed:,} of {self.total:,} model tensors{unknown}"


def fitting(source: Iterable[str], target: Iterable[str]) -> list[MapFit]:
    """Return the maps that place more tensors of a source than equal names do, at least half of the target; the best first.

    Only names are compared. `source` and `target` are states, or their names.

    >>> old = [f"layers.0.attention.{w}.weight" for w in ("wq", "wk", "wv", "wo")]
    >>> new = [f"model.layers.0.self_attn.{w}_proj.weight" for w in "qkvo"]
    >>> print(*fitting(old, new))
    --map llama-hf --param head_dim=N: 4 of 4 model tensors
    """
    given, wanted = list(source), set(target)
    known = len(wanted.intersection(given))
    found = [fit for name in names() for fit in _fits(name, given, wanted)]
    found = [fit for fit in found if fit.placed > known and 2 * fit.placed >= len(wanted)]
    return sorted(found, key=lambda fit: (-fit.placed, len(fit.unknown), fit.name))


def _fits(name: str, given: list[str], wanted: set[str]) -> list[MapFit]:
    """Return how one map fits, in each direction."""
    file = read(name)
    some = given[:: len(given) // _SOME + 1]
    there = StateMap(file, dict.fromkeys(file.parameters, 1))
    found = []
    for one in (there, there.inverse) if there.invertible else (there,):
        if wanted.isdisjoint(produced(one, some)):
            continue
        placed, unknown = len(wanted.intersection(produced(one, given))), tuple(one.unknown(given))
        found.append(MapFit(name, one.inverted, placed, len(wanted), unknown, tuple(file.parameters)))
    return found


def produced(one: StateMap, names: Iterable[str]) -> set[str]:
    """Return the names that the rules make of these; a split makes all of its targets."""
    made: set[str] = set()
    for name in one.seen(names):
        hit = one.index.find(name)
        if hit is None:
            continue
        rule = one.rules[hit.rule]
        if hit.new is not None or not isinstance(rule, Rule):
            made.add(str(hit.new))
        elif rule.scattered is None:
            values: Mapping[str, Any] = {key: text for key, text in hit.placeholders.items() if key != rule.gathered}
            made.update(target.fill(values) for target in rule.targets)
    return made
