"""What an audit says: one Finding per place, each with why it matters and code that mends it.

The words of every kind are in one table at the end, so that they can be read together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import printable

Kind = Literal[
    "plain tensor",
    "hidden parameter",
    "hidden module",
    "passing buffer",
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
class Finding:
    """Something that would silently not be saved, moved or trained as it seems.

    Attributes:
        kind: one of `Kind`.
        path: where: `encoder.cache[0]['key']`.
        why: what follows from it.
        fix: code to paste: into the constructor of the module that owns it (`self`), or where `model` and `optimizer` are.

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


def finding(kind: Kind, path: str, fix: str, **facts: str) -> Finding:
    """The Finding of that kind, its words completed with `facts`."""
    return Finding(kind, path, _WHY[kind].format(**facts), fix)


_WHY: dict[Kind, str] = {
    "plain tensor": "a tensor that is no buffer is not in state_dict(), and does not move with the model",
    "hidden parameter": "a parameter that is not registered is not saved, not moved, and not found to be trained",
    "hidden module": "a module that is not registered is not saved, not moved, and its parameters are not trained",
    "passing buffer": "a buffer with persistent=False is not saved: a loaded model has what its constructor puts there",
    "buffer with gradient": "a buffer that requires grad is not in parameters(), so no optimizer trains it",
    "tied": "one parameter under several names ({names}) is saved under each, and contradicting values cannot be loaded",
    "overlapping": "shares memory with {other} without being the same parameter: training one changes the other",
    "shared module": "one module at several places ({names}) is saved once for each",
    "endless": "the module contains itself: state_dict() does not end",
    "own state": "its own state_dict() leaves out {names}: they are not saved, and a load finds them missing{unless}",
    "name": "a name with a dot in it, or none, is taken for two levels when a state is loaded",
    "meta": "on the meta device there are no elements: it can be neither saved nor trained",
    "uninitialized": "its shape is not known before the first forward pass, so there is nothing to save",
    "not trained": "requires grad, but the optimizer does not hold it",
    "frozen": "the optimizer holds it, but it does not require grad, so it is not trained",
    "not saved": "the optimizer trains it, but the model does not have it: perhaps the model's was replaced since",
}
