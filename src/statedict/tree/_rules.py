"""The rules of a load: exactly as PyTorch, or sound.

`EXACT` is used under PyTorch's own names (`install`); `SOUND` is this library's default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from statedict.state import CastKind

if TYPE_CHECKING:
    from ._host import JointLoad

LOSSY: frozenset[CastKind] = frozenset({"truncation", "imaginary", "overflow"})


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for loading a state into a module tree.

    Attributes:
        sound: all or nothing. Everything is decided before anything is written; if the load is refused, changes by modules'
            own code and hooks are undone; the caller's state is never modified. Names under a child that is None are
            unexpected; a tensor that stays on the meta device is missing; a name whose tensor is loaded under another name
            (tied) is not missing; two values for one tensor are an error; ties survive `assign`.
            False: the effects of PyTorch's `load_state_dict`, in its order.
        refused: the kinds of cast that are errors (only if `sound`).
        verify: check the checksums of values from files before writing anything (only if `sound`).
        together: the joint load of several processes (only if `sound`). The last `act` of the load calls its `agree`
            exactly once, between what can fail and what cannot be undone, and undoes everything if it raises.
    """

    sound: bool
    refused: frozenset[CastKind] = LOSSY
    verify: bool = True
    together: JointLoad | None = None

    def allowing(self, *kinds: CastKind) -> Rules:
        """The same rules, but allow these kinds of cast; they are still reported.

        >>> "overflow" in SOUND.allowing("overflow").refused
        False
        """
        return self if not kinds else replace(self, refused=self.refused - set(kinds))

    def alone(self) -> Rules:
        """The same rules for values that are written before the last ones, without asking other processes."""
        return self if self.together is None else replace(self, together=None)


EXACT = Rules(sound=False, refused=frozenset(), verify=False)
SOUND = Rules(sound=True)
