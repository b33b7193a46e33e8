"""Check whether tensors fit their slots, and apply the policy to those that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from statedict.state import DType, Spec

from ..names._recipe import Offer, sources_of
from ..operations._specs import Shape, dtype_of, shape_of, spec_of
from ._policy import SKIP
from ._step import Adaptation, Mismatch, Policy, Step


class Fitting:
    """Collects `steps`, `skipped` and `misfits`, one tensor after the other.

    `policy`, `dtype` and `device` return what was requested for a tensor with the given names.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        slots: Mapping[str, Any],
        policy: Callable[..., Policy],
        dtype: Callable[..., DType | None],
        device: Callable[..., Any],
    ) -> None:
        self.steps: list[Step] = []
        self.skipped: list[Mismatch] = []
        self.misfits: list[Mismatch] = []
        self._given, self._slots = given, slots
        self._policy, self._dtype, self._device = policy, dtype, device

    def add(self, slot: str, name: str, offer: Offer) -> None:
        """Decide how the offer called `name` fills `slot`."""
        value = self._given[offer] if isinstance(offer, str) else offer.spec(self._given)
        names = (slot, name, *sources_of(offer))
        adaptation = None
        if not fits(found := found_in(value), expected := shape_of(self._slots[slot])):
            made = self._adapted(_misfit(slot, found, expected), spec_of(value), names)
            if made is None:
                return
            adaptation = made if isinstance(made, Adaptation) else None
        kept = self._slots[slot] if adaptation and adaptation.keeps else None
        dtype = self._dtype(*names)
        if dtype is not None:
            now = adaptation.spec.dtype if adaptation else dtype_of(value)
            dtype = dtype if now and now.is_floating and now is not dtype and spec_of(value) else None
        self.steps.append(Step(slot, offer, adaptation, kept, dtype, self._device(*names)))

    def _adapted(self, misfit: Mismatch, spec: Spec | None, names: tuple[str, ...]) -> Adaptation | Mismatch | None:
        """Return how a tensor of another shape is adapted; the Mismatch if it cannot be, None if its slot is skipped."""
        policy = self._policy(*names)
        if policy is SKIP:
            self.skipped.append(misfit)
            return None
        slot = spec_of(self._slots[misfit.name])
        made = policy.decide(spec, slot) if spec and slot else "only strided tensors can be adapted"
        if isinstance(made, Adaptation) and made.keeps and getattr(self._slots[misfit.name], "is_meta", False):
            made = f"{policy.name!r} needs values of the model, but this tensor is on the meta device"
        if isinstance(made, Adaptation):
            return made
        misfit = misfit._replace(note=made)
        self.misfits.append(misfit)
        return misfit


def misfits(given: Mapping[str, Any], slots: Mapping[str, Any]) -> tuple[Mismatch, ...]:
    """Return the tensors whose shape differs from that of the slot with the same name."""
    found = ((name, found_in(given[name]), shape_of(slot)) for name, slot in slots.items() if name in given)
    return tuple(_misfit(*one) for one in found if not fits(*one[1:]))


def found_in(value: Any) -> Shape | str | None:
    """Return a tensor's shape, None for a lazy tensor, and the type's name for other values."""
    shape = shape_of(value)
    return shape if shape is not None or dtype_of(value) else type(value).__name__


def fits(found: Shape | str | None, expected: Shape | None) -> bool:
    """Whether a tensor of shape `found` can fill a slot of shape `expected`.

    If one is unknown (lazy parameters, slots that are not tensors), the loader checks it. As in PyTorch, for files of its
    version 0.3, a tensor of shape [1] fills a scalar, but not the other way round.
    """
    return found == expected or found is None or expected is None or (found == (1,) and expected == ())


def _misfit(name: str, found: Shape | str | None, expected: Shape | None) -> Mismatch:
    return Mismatch(name, "" if found is None else found, () if expected is None else expected)
