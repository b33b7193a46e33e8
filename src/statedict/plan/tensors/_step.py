"""Steps: one slot filled, and all that happens to its tensor on the way."""

from __future__ import annotations

from typing import Any, NamedTuple

from statedict.state import DType, Leaf, computed, leaf_of

from ..names._compute import Cook
from ..names._recipe import Offer, sources_of
from ..operations._facts import Shape
from ._adaptation import Adaptation


class Step(NamedTuple):
    """`target` is filled with what is offered: a source's own tensor, or a part of what a rule makes of several.

    `adaptation` makes it fit, `kept` being the slot's own value where that keeps some of it; `dtype` is what it is cast to;
    None where that is not done. `device` is carried along for whoever places it.
    """

    target: str
    offer: Offer
    adaptation: Adaptation | None = None
    kept: Any = None
    dtype: DType | None = None
    device: Any = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The source names that it is made of."""
        return sources_of(self.offer)

    @property
    def renamed(self) -> bool:
        """Whether it comes under another name than it had."""
        return self.offer != self.target

    @property
    def how(self) -> str:
        """How the tensor is converted or made to fit, in words; empty where it is not."""
        said = [] if isinstance(self.offer, str) else [str(operation) for operation in self.offer.recipe.operations]
        return ", ".join([*said, *([self.adaptation.text] if self.adaptation else [])])

    @property
    def change(self) -> str:
        """All that is done to the tensor, in words; empty where it passes untouched."""
        return ", ".join(filter(None, [self.how, f"cast to {self.dtype}" if self.dtype else ""]))

    def value(self, cook: Cook) -> Any:
        """What fills the slot: the source's own value, or a leaf that is computed when it is read."""
        value = cook.offered(self.offer)
        if self.adaptation is None and self.dtype is None:
            return value
        leaf = leaf_of(value)
        if not isinstance(leaf, Leaf):
            raise TypeError(f"{self.sources[0]!r} is no strided tensor any more, as it was when the plan was made")
        if self.adaptation is not None:
            leaf = _adapted(leaf, self.adaptation, self.kept)
        return leaf if self.dtype is None else cook.cast(leaf, self.dtype)


class Mismatch(NamedTuple):
    """A tensor that does not fit its slot: shapes (or a type's name, for what is no tensor), and why nothing helped."""

    name: str
    found: Shape | str
    expected: Shape
    note: str = ""


def _adapted(leaf: Leaf, adaptation: Adaptation, kept: Any) -> Leaf:
    inputs = [leaf]
    if adaptation.keeps:
        own = leaf_of(kept)
        if not isinstance(own, Leaf):
            raise TypeError("the slot's own tensor is not strided, as it was when the plan was made")
        inputs.append(own)
    return computed(adaptation.spec, inputs, adaptation.function, leaf.traits._replace(conj=False, neg=False))
