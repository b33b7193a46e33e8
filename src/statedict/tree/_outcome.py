"""What came of a load, as plain data, and PyTorch's words for what went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from statedict.state import CastKind


class Cast(NamedTuple):
    """A tensor that was loaded into another dtype; `kind` is what that does to its elements (`cast_kind`)."""

    name: str
    found: str
    wanted: str
    kind: CastKind


@dataclass
class Outcome:
    """What a load did, or would have done where `judge` refuses it.

    Attributes:
        strict: as the caller said.
        missing, unexpected: names, in PyTorch's order. Hooks may have edited them.
        errors: what else is wrong, in PyTorch's words where it has some; these count also when not strict.
        loaded: names whose values went into the model.
        casts: the loaded tensors whose dtype changed.
        tied: names that the state does not have, to the name whose value they share.
    """

    strict: bool
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    casts: list[Cast] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)

    def refusal(self, module: str) -> str | None:
        """PyTorch's text for a load into a module of class `module` that cannot stand; None where it can."""
        problems = list(self.errors)
        if self.strict and self.unexpected:
            problems.insert(0, f"Unexpected key(s) in state_dict: {_quoted(self.unexpected)}. ")
        if self.strict and self.missing:
            problems.insert(0, f"Missing key(s) in state_dict: {_quoted(self.missing)}. ")
        if not problems:
            return None
        return f"Error(s) in loading state_dict for {module}:\n\t" + "\n\t".join(problems)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
