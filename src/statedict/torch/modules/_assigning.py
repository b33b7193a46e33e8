"""Load with `assign=True`, all or nothing: the values replace the model's tensors. Tied tensors stay tied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.parameter import Parameter

from statedict.errors import LoadError
from statedict.state import Compound, Leaf, materialize
from statedict.tree import Fit, Rules, Slots

from ..tensors._copy_pairs import failed
from ..tensors._dtensor import empty_like, is_sharded
from ..tensors._dtypes import TORCH_DTYPES
from ..tensors._library import TORCH
from ._fits import MisfitError, check_replacement, checked, is_on_meta, made_for, shape_of, whole_here
from ._sharded_slots import local_pairs, updated
from ._shared_reads import share_reads
from ._ties import contradictions


class Assigning:
    """Slots whose values replace the registered tensors. `fit.act` registers them, or raises and restores all of them."""

    def __init__(self, slots: Slots, rules: Rules, fit_copies: Callable[[Slots, Rules], Fit]) -> None:
        """`fit_copies` decides about Slots whose tensors keep their memory; sharded values are copied into new tensors."""
        self.slots = slots
        self.rules = rules
        self._fit_copies = fit_copies
        self._sharded: list[int] = []
        self.fit = Fit(self.act)
        self.values: list[Any] = list(slots.values)
        problems: dict[int, str] = {}
        share_reads(slots, rules)
        for index in range(len(slots.keys)):
            try:
                self._decide(index)
            except MisfitError as misfit:
                problems[index] = str(misfit)
        # Tensors are replaced, not written to, so only identical objects are tied.
        objects = list(map(id, slots.current))
        ties = contradictions(slots, self.values, objects, len(set(objects)), verify=rules.verify)
        self.fit.refuse(ties | problems)

    def _decide(self, index: int) -> None:
        key, current = self.slots.keys[index], self.slots.current[index]
        value = self.values[index] = checked(key, current, self.values[index])
        if is_on_meta(value):
            self.fit.empty.append(key)
            self.fit.failed.add(index)
            return
        if isinstance(value, (Leaf, Compound)):
            if isinstance(value, Compound):
                check_replacement(key, current, value)
            dtype = value.spec.dtype if isinstance(value, Leaf) else value.dtype
            if isinstance(current, Parameter) and current.requires_grad and dtype.kind not in ("float", "complex"):
                reason = RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
                raise MisfitError(failed(key, current.shape, shape_of(value), reason))
        if is_sharded(current) and not (is_sharded(value) and _is_alike(current, value)):
            local_pairs(key, current, value)
            self._sharded.append(index)
        elif isinstance(value, (Leaf, Compound)):
            self.values[index] = whole_here(key, current, value)
        else:
            try:
                self.values[index] = _in_place_of(current, value)
            except RuntimeError as error:
                raise MisfitError(failed(key, current.size(), value.size(), error)) from error

    def act(self) -> Sequence[str]:
        going = [index for index in range(len(self.slots.keys)) if index not in self.fit.failed]
        self._shard([index for index in self._sharded if index not in self.fit.failed])
        self._read([index for index in going if isinstance(self.values[index], (Leaf, Compound))])
        registries = [
            (registry, dict(registry))
            for module in {id(module): module for module, _ in self.slots.places}.values()
            for registry in (module._parameters, module._buffers)
        ]
        sharded = [self.slots.places[index][0] for index in going if is_sharded(self.slots.current[index])]
        # id of a replaced tensor → (the tensor, its replacement), over all batches. The reference prevents reuse of the id.
        replaced: dict[int, tuple[Any, Any]] = self.slots.ties.setdefault("replaced", {})
        try:
            for index in going:
                current = self.slots.current[index]
                _, new = replaced.setdefault(id(current), (current, self.values[index]))
                module, name = self.slots.places[index]
                setattr(module, name, new)
            updated(sharded)
            if self.rules.together is not None:
                self.rules.together.agree()
        except BaseException:
            for registry, before in registries:
                registry.clear()
                registry.update(before)
            updated(sharded)
            raise
        return ()

    def _shard(self, indices: list[int]) -> None:
        """Fill new DTensors, on the meshes of the model's, with this rank's parts of the values."""
        if not indices:
            return
        keys, current, values = (
            [column[i] for i in indices] for column in (self.slots.keys, self.slots.current, self.values)
        )
        new = [empty_like(old, _dtype_of(value)) for old, value in zip(current, values)]
        fit = self._fit_copies(Slots(keys, new, values), self.rules.alone())
        if fit.errors:
            raise LoadError("\n\t".join(fit.errors))
        fit.act()
        for index, old, made in zip(indices, current, new):
            self.values[index] = _in_place_of(old, made)

    def _read(self, lazy: list[int]) -> None:
        leaves = [self.values[index] for index in lazy]
        for index, array in zip(lazy, materialize(leaves, TORCH, verify=self.rules.verify)):
            current = self.slots.current[index]
            self.values[index] = _in_place_of(current, made_for(current, array))


def _dtype_of(value: Any) -> torch.dtype:
    if isinstance(value, (Leaf, Compound)):
        return TORCH_DTYPES[value.spec.dtype if isinstance(value, Leaf) else value.dtype]
    found: torch.dtype = value.dtype
    return found


def _is_alike(a: Any, b: Any) -> bool:
    """Whether two DTensors are sharded in the same way."""
    return bool(a.device_mesh == b.device_mesh and a.placements == b.placements)


def _in_place_of(current: Any, value: Any) -> Any:
    """The object to register in place of `current`: a Parameter with the model's `requires_grad`, or a tensor.

    The caller's tensor is never modified: if its `requires_grad` differs, an alias of it is registered.
    """
    if not isinstance(current, Parameter):
        return value.detach() if isinstance(value, Parameter) else value
    if isinstance(value, Parameter):
        if value.requires_grad is current.requires_grad:
            return value
        value = value.detach()
    return Parameter(value, requires_grad=current.requires_grad)
