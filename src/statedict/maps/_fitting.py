"""Find the maps that convert the names of one state into those of another, without reading a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from statedict.plan import Rule

from ._library import names, read
from ._state_map import StateMap

# Each map is tried on this many names first, evenly spaced, and on all names only if it places one of these: trying all maps
# on 50,000 names would take 14 seconds.
_SAMPLE = 64


class MapFit(NamedTuple):
    """How well a map of the package fits two states.

    Attributes:
        name: of the map.
        inverse: whether its inverse is meant.
        placed: the number of target names that it produces.
        total: the number of target names.
        unknown: source names that it neither converts nor ignores.
        parameters: what the map needs besides the states.

    >>> print(MapFit("llama-hf", True, 290, 291, ("rope.freqs",), ("head_dim",)))
    --map llama-hf --inverse --param head_dim=N: 290 of 291 model tensors, 1 checkpoint tensors without a rule
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
    sample = given[:: len(given) // _SAMPLE + 1]
    forward = StateMap(file, dict.fromkeys(file.parameters, 1))
    found = []
    for state_map in (forward, forward.inverse) if forward.invertible else (forward,):
        if wanted.isdisjoint(produced(state_map, sample)):
            continue
        placed, unknown = len(wanted.intersection(produced(state_map, given))), tuple(state_map.unknown(given))
        found.append(MapFit(name, state_map.inverted, placed, len(wanted), unknown, tuple(file.parameters)))
    return found


def produced(state_map: StateMap, names: Iterable[str]) -> set[str]:
    """Return the names that the rules make of these; a split makes all of its targets."""
    made: set[str] = set()
    for name in state_map.seen(names):
        hit = state_map.index.find(name)
        if hit is None:
            continue
        rule = state_map.rules[hit.rule]
        if hit.new is not None or not isinstance(rule, Rule):
            made.add(str(hit.new))
        elif rule.scattered is None:
            values: Mapping[str, Any] = {key: text for key, text in hit.placeholders.items() if key != rule.gathered}
            made.update(target.fill(values) for target in rule.targets)
    return made
