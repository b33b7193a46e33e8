"""Filling slots all or nothing: first decide about each, then write them all.

Theory of operation. Ordinary pairs (same shape, dtype and device) are found in bulk, and copying them can only succeed.
Every other pair is looked at by itself: what PyTorch would refuse becomes a line of its text; casts are judged by their
elements; what cannot be told beforehand (subclasses, sparse and quantised tensors) is tried on a copy. `act` does what may
still fail, which is reading, before what cannot, and puts back what it wrote if it fails all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from statedict.state import Compound, Leaf, cast_kind, many, not_put_back
from statedict.tree import Cast, Fit, Rules, Slots

from ..tensors._copy_pairs import ORDINARY, alike, copy_all, failed
from ..tensors._dtensor import any_sharded
from ..tensors._dtypes import DTYPES_OF_TORCH
from ..tensors._extent import extent
from ..tensors._memory import addresses
from ..tensors._wrapper import is_wrapper
from ._assigning import Assigning
from ._backup import keep
from ._direct import PLAIN_KINDS, are_direct, is_direct
from ._fits import (
    MisfitError,
    checked,
    is_on_meta,
    read_now,
    shape_of,
    unfit,
    whole_here,
    wrapper_pairs,
    wrapper_reason,
)
from ._read_into import Arrivals
from ._sharded_slots import fit_sharded
from ._swapping import Swapping
from ._ties import contradictions, places

FREED = "Its storage has been freed, as FSDP does between steps; gather or allocate it first."


def fit_sound(slots: Slots, rules: Rules) -> Fit:
    """A Fit that has changed nothing yet; its `act` does all that is left, or raises and has done nothing."""
    if torch.__future__.get_swap_module_params_on_conversion():
        return Swapping(slots, rules).fit
    if slots.assign:
        return Assigning(slots, rules, fit_sound).fit
    if any_sharded(slots.current, slots.values):
        return fit_sharded(slots, lambda local: _Copying(local, rules).fit)
    return _Copying(slots, rules).fit


class _Copying:
    """The slots whose tensors keep their memory, and get the values' elements."""

    def __init__(self, slots: Slots, rules: Rules) -> None:
        self.rules = rules
        self.slots = slots
        self.fit = Fit(self.act)
        self.places = places(slots.current)
        self.written = set(self.places)
        self.values: list[Any] = list(slots.values)
        # What goes which way, as indices: 32,000 objects would cost as much as copying them.
        self.bulk: Sequence[int] = self._ordinary()
        self.direct: Sequence[int] = []
        self.arriving: list[int] = []
        self.tried: list[int] = []
        # The inner tensors of wrappers, and their leaves, by slot.
        self.parts: dict[int, list[tuple[Any, Leaf]]] = {}
        problems: dict[int, str] = {}
        self.rows = many(self.values) if not self.bulk else None
        if not self.bulk and 0 not in self.places and are_direct(slots.current, self.values, self.rows):
            self.direct = range(len(self.values))
        elif len(self.bulk) < len(slots.keys):
            problems = self._decide_others(list(self.bulk))
        problems |= contradictions(slots, self.values, self.places, len(self.written), verify=rules.verify)
        self.fit.errors += [problems[index] for index in sorted(problems)]
        self.fit.failed |= problems.keys()

    def _ordinary(self) -> Sequence[int]:
        current = self.slots.current
        bulk = alike(current, self.values)
        if not bulk:
            return bulk
        tensors = current if len(bulk) == len(current) else [current[index] for index in bulk]
        # An address of 0 is a tensor without elements, or one whose memory was freed: copying that ends the process.
        if (
            all(map(torch.Tensor.is_contiguous, tensors))
            and not any(map(torch.Tensor.is_inference, tensors))
            and 0 not in self.places
            and 0 not in addresses(self.values)
        ):
            return bulk
        return [i for i in bulk if _unwritable(current[i]) is None and not _is_freed(self.values[i])]

    def _decide_others(self, bulk: list[int]) -> dict[int, str]:
        """Decide about each slot that is not in the bulk; gives those that cannot be done, with what is wrong."""
        ordinary, direct, problems = set(bulk), [], {}
        for index, (param, value) in enumerate(zip(self.slots.current, self.slots.values)):
            if index in ordinary:
                continue
            if is_direct(param, value):
                direct.append(index)
                continue
            try:
                if self._decide(index):
                    bulk.append(index)
            except MisfitError as misfit:
                problems[index] = str(misfit)
        bulk.sort()
        self.bulk, self.direct = bulk, direct
        return problems

    def _decide(self, index: int) -> bool:
        """Find out which way the value goes; true where it goes with the bulk."""
        key, param = self.slots.keys[index], self.slots.current[index]
        value = self.values[index] = whole_here(key, param, checked(key, param, self.values[index]))
        if is_lazy(value):
            return False
        if not is_lazy(param) and param.is_meta:
            self.fit.empty.append(key)
            self.fit.failed.add(index)
            return False
        if is_on_meta(value):
            empty = NotImplementedError("Cannot copy out of meta tensor; no data!")
            raise MisfitError(failed(key, param.shape, shape_of(value), empty))
        reason = _unwritable(param) or (FREED if _is_freed(value) else None)
        if reason is not None:
            raise MisfitError(failed(key, param.shape, shape_of(value), RuntimeError(reason)))
        pairs = wrapper_pairs(key, param, value)
        if pairs is not None:
            self.parts[index] = pairs
            return False
        value = self.values[index] = self._cast(key, param, value)
        if _is_ordinary(param):
            if isinstance(value, Leaf) and value.spec.dtype.kind in PLAIN_KINDS:
                self.arriving.append(index)
                return False
            if _is_ordinary(value):
                return True
        self.values[index] = value = read_now(value, verify=self.rules.verify)
        _try(key, param, value)
        self.tried.append(index)
        return False

    def _cast(self, key: str, param: Any, value: Any) -> Any:
        """Note what becomes of the elements, and raise MisfitError where the rules refuse that."""
        found = value.dtype if isinstance(value, Compound) else _dtype_of(value)
        wanted = _dtype_of(param)
        if found is None or wanted is None:
            return value
        kind = cast_kind(found, wanted, lambda: extent(read_now(value, verify=self.rules.verify)))
        if kind is None:
            return value
        self.fit.casts.append(Cast(key, found.name, wanted.name, kind))
        if kind in self.rules.refused:
            raise MisfitError(
                f'While copying the parameter named "{key}", its elements would be lost: the checkpoint has {found} and '
                f"the model {wanted} ({kind}). Convert one of them, or allow the cast."
            )
        # PyTorch would warn, which some make an error, of what has just been allowed.
        return read_now(value, verify=self.rules.verify).real if kind == "imaginary" else value

    def act(self) -> Sequence[str]:
        targets, values = self._copies()
        if self.direct or self.arriving or self.tried or self.parts:
            self._act_or_undo()
        elif self.rules.together is not None:
            self.rules.together.agree()
        copy_all(targets, values)
        return ()

    def _act_or_undo(self) -> None:
        """Do what may still fail."""
        current = self.slots.current
        direct = self._going(self.direct)
        tensors, leaves = [current[i] for i in direct], [self.values[i] for i in direct]
        others = [(current[i], self.values[i]) for i in self._going(self.arriving)]
        others += [pair for i in self._going(list(self.parts)) for pair in self.parts[i]]
        tried = self._going(self.tried)
        rows = self.rows if len(leaves) == len(self.values) else None
        arrivals = Arrivals(tensors, leaves, others, rows)
        put_back = keep(current[i] for i in tried)
        try:
            with torch.no_grad():
                for i in tried:
                    current[i].copy_(self.values[i])
            arrivals.fill(verify=self.rules.verify, joint=self.rules.together)
        except BaseException as error:
            put_back()
            if arrivals.changed:
                names = {id(tensor): key for key, tensor in zip(self.slots.keys, current)}
                error.add_note(not_put_back([names[id(tensor)] for tensor in arrivals.changed]))
            raise

    def _going(self, indices: Sequence[int]) -> Sequence[int]:
        return [i for i in indices if i not in self.fit.failed] if self.fit.failed else indices

    def _copies(self) -> tuple[list[Any], list[Any]]:
        """The tensors of the bulk and their values. A value in memory that will be written before it is read is cloned."""
        bulk, targets, values, places = self._going(self.bulk), self.slots.current, self.values, self.places
        if len(bulk) < len(targets):
            targets, values, places = ([column[i] for i in bulk] for column in (targets, values, places))
        theirs = addresses(values)
        if not self.written.isdisjoint(theirs):
            values = [
                value.detach().clone() if where and where in self.written and where != place else value
                for value, where, place in zip(values, theirs, places)
            ]
        return targets, values


def _is_ordinary(tensor: Any) -> bool:
    if type(tensor) not in ORDINARY or tensor.layout is not torch.strided:
        return False
    dtype = DTYPES_OF_TORCH.get(tensor.dtype)
    return not tensor.is_nested and dtype is not None and dtype.kind in PLAIN_KINDS


def _is_freed(tensor: Any) -> bool:
    """Whether an ordinary tensor has elements and no memory for them."""
    if type(tensor) not in ORDINARY or tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
        return False
    return bool(tensor.numel()) and not tensor.untyped_storage().data_ptr()


def _unwritable(tensor: Any) -> str | None:
    """What forbids to copy into the tensor, in PyTorch's words; it would say so only when the elements are changed."""
    if _is_freed(tensor):
        return FREED
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return "Inplace update to inference tensor outside InferenceMode is not allowed."
    if type(tensor) in ORDINARY and tensor.layout is torch.strided and torch._debug_has_internal_overlap(tensor) == 1:
        return (
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location."
        )
    return None


def _try(key: str, param: Any, value: Any) -> None:
    """Copy into a tensor like the parameter, to see whether PyTorch will."""
    try:
        with torch.no_grad():
            param.detach().clone().copy_(value)
    except Exception as error:  # whatever it is, it is what PyTorch would have said
        reason = wrapper_reason(param, value) if is_wrapper(param) or is_wrapper(value) else None
        raise MisfitError(
            unfit(key, reason) if reason else failed(key, param.size(), shape_of(value), error)
        ) from error


def _dtype_of(value: Any) -> Any:
    return value.spec.dtype if isinstance(value, Leaf) else DTYPES_OF_TORCH.get(value.dtype)
