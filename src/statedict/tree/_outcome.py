"""The result of a load, as plain data, and PyTorch's message for its errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from statedict.state import Cast


@dataclass
class Outcome:
    """What a load did, or would have done if `judge` raised.

    Attributes:
        strict: the caller's argument.
        missing, unexpected: names, in PyTorch's order. Hooks may have edited them.
        errors: other errors, with PyTorch's text if it has one; these are errors also if not strict.
        loaded: names whose values were loaded.
        casts: loaded tensors whose dtype was converted.
        tied: names that the state lacks → the name whose value they share.
    """

    strict: bool
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    casts: list[Cast] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)

    def refusal(self, module: str) -> str | None:
        """PyTorch's error text for a failed load into a module of class `module`; None if the load succeeded."""
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
