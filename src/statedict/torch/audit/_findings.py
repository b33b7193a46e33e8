"""The findings of an audit, each with the reason and code that fixes it.

The texts of all kinds are in one table at the end of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import printable

Kind = Literal[
    "plain tensor",
    "hidden parameter",
    "hidden module",
    "non-persistent buffer",
    "buffer with gradient",
    "tied",
    "overlapping",
    "shared module",
    "endless",
    "own state",
    "name",
    "meta",
    "uninitialized",
    "not trained",
    "frozen",
    "not saved",
]


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """A part of a model that would silently not be saved, moved or trained.

    Attributes:
        kind: one of `Kind`.
        path: its location, such as `encoder.cache[0]['key']`.
        why: the consequence.
        fix: code to paste into the constructor of the module that owns it (`self`), or where `model` and `optimizer` are
            defined.

    >>> import torch, statedict
    >>> model = torch.nn.Linear(2, 2)
    >>> model.scale = torch.ones(2)
    >>> (finding,) = statedict.audit(model)
    >>> finding.path, finding.fix
    ('scale', 'self.register_buffer("scale", scale)')
    """

    kind: Kind
    path: str
    why: str
    fix: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.why}. Fix: {self.fix}")


def finding(kind: Kind, path: str, fix: str, **facts: str) -> AuditFinding:
    """Make a finding of a kind, filling `facts` into its text."""
    return AuditFinding(kind, path, _WHY[kind].format(**facts), fix)


_WHY: dict[Kind, str] = {
    "plain tensor": "a plain tensor attribute is not in state_dict(), and does not move with the model",
    "hidden parameter": "a parameter that is not registered is not saved, moved or trained",
    "hidden module": "a module that is not registered is not saved or moved, and its parameters are not trained",
    "non-persistent buffer": "a buffer with persistent=False is not saved: a load leaves its value from the constructor",
    "buffer with gradient": "a buffer that requires grad is not in parameters(), so no optimizer trains it",
    "tied": "one parameter under several names ({names}): it is saved under each, and different values cannot be loaded",
    "overlapping": "shares memory with {other} without being the same parameter: training one changes the other",
    "shared module": "one module under several names ({names}): it is saved under each",
    "endless": "the module contains itself: state_dict() recurses without end",
    "own state": "its own state_dict() omits {names}: these are not saved, and are missing when loading{unless}",
    "name": "a name that is empty or contains a dot is read as two levels when a state is loaded",
    "meta": "a tensor on the meta device has no elements: it can be neither saved nor trained",
    "uninitialized": "its shape is unknown before the first forward pass, so it cannot be saved",
    "not trained": "requires grad, but the optimizer does not hold it",
    "frozen": "the optimizer holds it, but it does not require grad, so it is not trained",
    "not saved": "the optimizer trains it, but it is not in the model: perhaps the parameter was replaced",
}
