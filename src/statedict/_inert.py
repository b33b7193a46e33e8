"""Entries of a state that are data of unknown classes. They are reported, and never loaded into an object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from statedict.errors import LoadError, StateDictError
from statedict.state import (
    ArrayLibrary,
    Compound,
    Leaf,
    Opaque,
    Patterns,
    StateDict,
    every,
    library_of,
    matcher,
    raw_values,
)

from . import _arrays

if TYPE_CHECKING:
    from statedict.tree import Outcome


@dataclass(frozen=True, slots=True)
class Inert:
    """The entries of a state that are data of unknown classes.

    Attributes:
        wanted: the class by name, for the names that the module has and the caller did not allow to be missing.
        others: names that the module does not have.
    """

    wanted: dict[str, str]
    others: list[str]

    def add_to(self, outcome: Outcome) -> None:
        """Report these entries in `outcome`."""
        outcome.missing = [name for name in outcome.missing if name not in self.wanted]
        outcome.errors += self.errors
        outcome.unexpected += self.others

    @property
    def errors(self) -> list[str]:
        return [
            f"{name!r} in the source holds data of the unknown class {path}, which is not loaded: exclude it (exclude=, "
            "allow_missing=), or, if you trust the file, allow the class: "
            f"torch.serialization.add_safe_globals([{path.rpartition('.')[2]}])"
            for name, path in self.wanted.items()
        ]

    @contextmanager
    def explain(self, kind: str) -> Iterator[None]:
        """Raise LoadError if the loading code of a module of class `kind` fails, probably for lack of these entries."""
        try:
            yield
        except Exception as error:
            if isinstance(error, (StateDictError, OSError, MemoryError)) or not self.wanted:
                raise
            from statedict.plan import LoadReport, error_text

            failure = f"then its own loading code failed: {type(error).__name__}: {error}"
            report = LoadReport(errors=[*self.errors, failure])
            raise LoadError(error_text(kind, report), report=report) from error


def split(
    state: StateDict,
    slots: Mapping[str, Any],
    allowed: tuple[Patterns, Patterns],
    library: ArrayLibrary,
    *,
    verify: bool,
) -> tuple[StateDict, Inert]:
    """Return the state without its inert entries, and these.

    `allowed` are the patterns for missing and unexpected names. In the state, arrays inside values that are not tensors
    have been read (the extra state of modules expects arrays); entries that are tensors stay unread.
    """
    others = {name: _arrays.materialized(value, library, verify=verify) for name, value in _others(state).items()}
    if not others:
        return state, Inert({}, [])
    opaque = {name: next((v for v in every(value) if isinstance(v, Opaque)), None) for name, value in others.items()}
    inert = {name: value.path for name, value in opaque.items() if value is not None}
    is_allowed = [matcher(patterns) for patterns in allowed]
    wanted = {n: path for n, path in inert.items() if n in slots and not any(fits(n) for fits in is_allowed)}
    kept = {name: others.get(name, value) for name, value in raw_values(state).items() if name not in inert}
    new = StateDict.adopt(kept, state._metadata, state._backend)
    return new, Inert(wanted, [name for name in inert if name not in slots])


def _others(state: StateDict) -> dict[str, Any]:
    """Return the entries of a state that are not tensors."""
    values = raw_values(state)
    # Checks one value of each type: checking each of many tensors would cost more than planning the load.
    if {Leaf}.issuperset(map(type, values.values())):
        return {}
    kinds = {type(value): value for value in values.values()}
    others = {kind for kind, one in kinds.items() if not (isinstance(one, (Leaf, Compound)) or library_of(one))}
    return {name: value for name, value in values.items() if type(value) in others} if others else {}
