"""What a load may do: PyTorch's ways to the letter, or the sound ones.

Rules are a value. `EXACT` is what stands under PyTorch's own names; `SOUND` is this library's default.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from statedict.state import CastKind

LOSSY: frozenset[CastKind] = frozenset({"truncation", "imaginary", "overflow"})


@dataclass(frozen=True, slots=True)
class Rules:
    """How a state is written into a module tree.

    Attributes:
        sound: all or nothing. Everything is decided before anything is written, and what the code of modules and hooks did
            is put back when the load is refused; the caller's state is never written to; names under a child that is
            None are unexpected; a tensor left on a device without memory is missing; a name whose tensor arrived under
            another name (tied) is not; two values for one tensor are an error; ties survive `assign`.
            Otherwise the effects of PyTorch's `load_state_dict`, in its order.
        refused: the kinds of cast that are errors (only where `sound`).
        verify: checksums of values that come from files are settled before the first byte lands (only where `sound`).
    """

    sound: bool
    refused: frozenset[CastKind] = LOSSY
    verify: bool = True

    def allowing(self, *kinds: CastKind) -> Rules:
        """The same rules with these casts allowed: they are still reported.

        >>> "overflow" in SOUND.allowing("overflow").refused
        False
        """
        return self if not kinds else replace(self, refused=self.refused - set(kinds))


EXACT = Rules(sound=False, refused=frozenset(), verify=False)
SOUND = Rules(sound=True)
