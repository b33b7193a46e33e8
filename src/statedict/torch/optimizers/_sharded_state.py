"""The state of sharded parameters: DTensors like the parameters, of which each rank fills its own part.

They are new, as all loaded state is, and filled like the parameters of a sharded model: everything is decided by the shape
of the whole tensor, and each rank reads only the bytes that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, cast

import torch

from statedict.errors import PartError
from statedict.state import Leaf, Parts, leaf_of, map_tree, raw_values
from statedict.tree import Cast, JointLoad, Rules, Slots

from ..modules._load_sound import fit_sound
from ..snapshots._copy_tree import values_of
from ..tensors._dtensor import any_sharded, is_sharded
from ..together._joint import Joint, joint_load
from ._fit import NUMBERS
from ._match import SavedEntry
from ._place import Made, StatePlacement, dtype_of, target
from ._read import Slot


def joint_optimizer(optimizer: torch.optim.Optimizer) -> Joint | None:
    """Return the joint load of an optimizer with sharded parameters; None for any other optimizer."""
    return joint_load(chain.from_iterable(group["params"] for group in optimizer.param_groups))


class ShardedState:
    """The states to be loaded, with a new DTensor instead of each sharded tensor.

    Attributes:
        states: the states of the parameters, in which a DTensor is wrapped in Made.
        errors: messages about tensors that cannot be loaded.
        casts: the casts of elements of DTensors.
        fill: reads the elements of the DTensors.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        pairs: Sequence[tuple[Slot, SavedEntry]],
        places: Sequence[StatePlacement],
        rules: Rules,
    ) -> None:
        self.errors: list[str] = []
        self.casts: list[Cast] = []
        self.fill: Callable[[], object] = list
        self._slots = Slots()
        self.states = [entry.state for _, entry in pairs]
        if not _are_sharded([slot.parameter for slot, _ in pairs], self.states):
            return
        self.states = [self._state(optimizer, slot, place, entry.state) for (slot, entry), place in zip(pairs, places)]
        if self._slots.keys:
            joint = None if rules.together is None else cast("JointLoad", _WithoutVote(rules.together))
            fit = fit_sound(self._slots, replace(rules, together=joint))
            self.errors += fit.errors
            self.casts += fit.casts
            self.fill = fit.act

    def _state(self, optimizer: torch.optim.Optimizer, slot: Slot, place: StatePlacement, state: Any) -> Any:
        present = optimizer.state.get(slot.parameter, {})
        if not isinstance(state, Mapping) or not isinstance(present, Mapping):
            return state
        return {
            key: map_tree(value, partial(self._value, key, present.get(key), slot, place))
            for key, value in raw_values(state).items()
        }

    def _value(self, key: Any, present: Any, slot: Slot, place: StatePlacement, value: Any) -> Any:
        dtype = dtype_of(value)
        if dtype is None:
            return value
        label = f"{slot.label}.{key}"
        empty = _empty(key, slot.parameter, present, _shape(value), target(dtype, key, place))
        if empty is not None:
            self._slots.add(label, empty, value, (None, ""))
            return Made(empty)
        leaf = leaf_of(value) if is_sharded(value) else value
        try:
            return leaf.whole() if isinstance(leaf, Parts) else value
        except PartError as error:
            self.errors.append(f"{label}: {error}")
            return value


def _are_sharded(parameters: Sequence[torch.Tensor], states: Sequence[Any]) -> bool:
    """Whether there is a DTensor among the parameters, or in their states, or Parts of one."""
    if any_sharded(parameters):
        return True
    values = list(values_of(states))
    return any_sharded(values) or Parts in set(map(type, values))


def _empty(key: Any, parameter: torch.Tensor, present: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """Return a new DTensor for a state tensor; None if it is an ordinary tensor.

    It is placed like the optimizer's present one, or like the parameter if it has its shape. Numbers are ordinary tensors,
    and others of another shape are replicated.
    """
    if not is_sharded(parameter):
        return None
    if isinstance(present, torch.Tensor) and tuple(present.shape) == shape:
        return torch.empty_like(present, dtype=dtype) if is_sharded(present) else None
    if key in NUMBERS or not (shape or parameter.ndim == 0):
        return None
    if shape == tuple(parameter.shape):
        return torch.empty_like(parameter.detach(), dtype=dtype)
    return parameter.detach().new_empty(shape, dtype=dtype)


def _shape(value: Any) -> tuple[int, ...]:
    return value.spec.shape if isinstance(value, Leaf) else tuple(value.shape)


class _WithoutVote:
    """A joint load whose vote comes later, when the optimizer has accepted the state."""

    def __init__(self, joint: JointLoad) -> None:
        self.ranks = joint.ranks
        self.share = joint.share

    def agree(self, payload: Any = None) -> Sequence[Any]:
        return ()
