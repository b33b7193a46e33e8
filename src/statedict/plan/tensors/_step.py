"""Steps: how a slot is filled. An adaptation makes a tensor of another shape fit; a policy decides which one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import DType, Leaf, Spec, computed, leaf_of

from ..names._recipe import Evaluator, Offer, sources_of
from ..operations._specs import Shape

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Adaptation(NamedTuple):
    """A change of shape that is made when the tensor is read.

    Attributes:
        text: a description for reports.
        spec: the spec of the result.
        function: makes the result from the source's array; if `keeps`, the slot's own array is its second argument.
        keeps: whether some of the slot's own values are kept.
        within: makes the result inside a box from the same leaves, source first, with no more of them than needed; None if
            the function needs all of them.
    """

    text: str
    spec: Spec
    function: Callable[..., Array]
    keeps: bool = False
    within: Callable[..., Leaf] | None = None


@dataclass(frozen=True)
class Policy:
    """A way to handle tensors of a different shape.

    Attributes:
        name: its name in arguments and reports.
        decide: returns an Adaptation for the specs of source and slot, or the reason why it is not possible.
        blanket: a regular expression for the names it applies to if it is given for all names at once.
    """

    name: str
    decide: Callable[[Spec, Spec], Adaptation | str]
    blanket: str = ""


def working(dtype: DType) -> np.dtype[Any]:
    """Return the NumPy dtype to compute in: complex128 for complex, float64 for float64 and integers, else float32."""
    import numpy as np

    if dtype.is_complex:
        return np.dtype(np.complex128)
    return np.dtype(np.float32 if dtype.is_floating and dtype.itemsize <= 4 else np.float64)


class Step(NamedTuple):
    """How one parameter or buffer of the model (a slot) is filled.

    Attributes:
        target: its name.
        offer: the source's own tensor, or an output of a rule's recipe.
        adaptation: the change of shape, or None.
        kept: the model's own value, if the adaptation keeps some of it.
        dtype: the dtype to cast to, or None.
        device: the requested device, for the code that places the tensor.
    """

    target: str
    offer: Offer
    adaptation: Adaptation | None = None
    kept: Any = None
    dtype: DType | None = None
    device: Any = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The source names that it is made from."""
        return sources_of(self.offer)

    @property
    def renamed(self) -> bool:
        """Whether its name changes."""
        return self.offer != self.target

    @property
    def how(self) -> str:
        """A text that says how the tensor is converted or adapted; empty if it is not."""
        said = [] if isinstance(self.offer, str) else [str(operation) for operation in self.offer.recipe.operations]
        return ", ".join([*said, *([self.adaptation.text] if self.adaptation else [])])

    @property
    def change(self) -> str:
        """A text for all changes to the tensor; empty if there are none."""
        return ", ".join(filter(None, [self.how, f"cast to {self.dtype}" if self.dtype else ""]))

    def value(self, evaluator: Evaluator) -> Any:
        """Return the value for the slot: the source's own value, or a leaf that is computed when it is read."""
        value = evaluator.offered(self.offer)
        if self.adaptation is None and self.dtype is None:
            return value
        leaf = leaf_of(value)
        if not isinstance(leaf, Leaf):
            raise TypeError(
                f"{self.sources[0]!r} is no longer a strided tensor, as it was when the plan was made; make a new plan"
            )
        if self.adaptation is not None:
            leaf = _adapted(leaf, self.adaptation, self.kept)
        return leaf if self.dtype is None else evaluator.cast(leaf, self.dtype)


class Mismatch(NamedTuple):
    """A tensor that does not fit the parameter or buffer of its name: both shapes, or a type's name for other values.

    `note` says why it was not adapted.
    """

    name: str
    found: Shape | str
    expected: Shape
    note: str = ""


def _adapted(leaf: Leaf, adaptation: Adaptation, kept: Any) -> Leaf:
    inputs = [leaf]
    if adaptation.keeps:
        own = leaf_of(kept)
        if not isinstance(own, Leaf):
            raise TypeError(
                "the model's own tensor is no longer strided, as it was when the plan was made; make a new plan"
            )
        inputs.append(own)
    within = None if adaptation.within is None else partial(adaptation.within, *inputs)
    traits = leaf.traits._replace(conj=False, neg=False)
    return computed(adaptation.spec, inputs, adaptation.function, traits, within=within)
