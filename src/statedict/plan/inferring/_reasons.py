"""Why a tensor of the source belongs to a tensor of the model, and, if that is not certain, what would decide it."""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """A reason for a match; `decides` says how to decide an uncertain one, and is empty for a certain one.

    `rank` orders the certain reasons: a tensor gets the reason with the highest of those of the modules above it.
    """

    text: str
    decides: str = ""
    rank: int = 0

    @property
    def certain(self) -> bool:
        return not self.decides

    def weaker(self, other: Reason) -> Reason:
        """Return the weaker of two reasons; of two uncertain ones, this one."""
        if self.certain and other.certain:
            return max(self, other, key=lambda reason: reason.rank)
        return other if self.certain else self


SAME_NAME = Reason("same name")
UNWRAPPED = Reason("same name without wrapper prefixes")
UNIQUE = Reason("the only ones with these shapes")
NUMBERED = Reason("equal contents, numbered in the same order", rank=1)
REVERSED = Reason("equal contents, numbered in the opposite order, like their neighbours", rank=2)
SIMILAR = Reason("equal shapes, similar names", rank=3)
LAST = Reason("the only remaining ones of several with these shapes", rank=4)

_CODE = "check how the code of both models uses them, or compare the outputs of both models"
ORDER = Reason("equal shapes and no similar names: matched by their order", _CODE)
CONFLICT = Reason("equal shapes: the order and the names disagree", _CODE)
VAGUE = Reason("equal shapes, similar names, but some words speak for another match", _CODE)
MORE = Reason("equal shapes, similar names, but there are more of these shapes on one side", _CODE)
LEFT_OVER = Reason("the only ones with these shapes, but their names do not agree, and others may be missing", _CODE)
SAME_NUMBERS = Reason("equal shapes and numbers, but there are more of them on one side", "check which layers to load")
UNEVEN = Reason(
    "equal shapes, but in layers of which only some have a counterpart for every tensor", "check which layers to load"
)
CONTRARY = Reason(
    "equal shapes, but the numbers of layers or the other matches in these modules do not agree",
    "check which modules correspond: some may be missing, or their numbers may begin elsewhere",
)
TOWERS = Reason("in one of several equal modules whose names do not say which", "check which module is which")
RESHAPED = Reason(
    "the same number of elements in other shapes",
    "compare the outputs of both models: the elements may also be in another order",
)
JOINED = Reason(
    "several tensors in one",
    "check that the parts are one after the other, in this order: some models interleave them by attention head",
)
STACKED = Reason("numbered tensors stacked into one", "check that they are in the order of their numbers in the stack")
_OUTPUTS = "compare the outputs of both models: the shape of a square matrix does not show whether it is transposed"
TURNED = Reason("square matrices, probably transposed, as matrices near them are or names suggest", _OUTPUTS)
NOT_TURNED = Reason("square matrices, probably not transposed, as most matrices near them are not", _OUTPUTS)
UNMERGED = Reason(
    "the base weight of a LoRA layer, without the change that LoRA adds",
    "merge the LoRA into it if you need the change",
)
OTHER_SHAPE = Reason("same name, other shape", "adapt it with mismatched=, or exclude it")
