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

from statedict.state import Compound, Leaf
from statedict.tree import Cast, Fit, Rules, Slots

from ._arrivals import Arrival, arrive, nbytes_of, verify
from ._assigning import Assigning
from ._casts import cast_kind
from ._checking import MisfitError, checked, is_on_meta, read_now, shape_of
from ._dtypes import DTYPES_OF_TORCH
from ._keeping import keep
from ._pairs import ORDINARY, alike, copy_all, failed
from ._swapping import Swapping
from ._ties import addresses, contradictions

# What is remembered of a model while a file is read into it: a file that changes after it was verified leaves a small
# model as it was, and a large one with a note of what is torn. A backup of everything would double the memory.
BACKUP = 64 << 20


def fit_sound(slots: Slots, rules: Rules) -> Fit:
    """A Fit that has changed nothing yet; its `act` does all that is left, or raises and has done nothing."""
    if torch.__future__.get_swap_module_params_on_conversion():
        return Swapping(slots, rules).fit
    return Assigning(slots, rules).fit if slots.assign else _Copying(slots, rules).fit


class _Copying:
    """The slots whose tensors keep their memory, and get the values' elements."""

    def __init__(self, slots: Slots, rules: Rules) -> None:
        self.rules = rules
        self.slots = slots
        self.fit = Fit(self.act)
        self.places = addresses(slots.current)
        self.values: list[Any] = list(slots.values)
        # What goes which way, as indices: 32,000 pairs of their own would cost as much as copying them.
        self.bulk = self._ordinary()
        self.arriving: list[int] = []
        self.tried: list[int] = []
        problems: dict[int, str] = {}
        if len(self.bulk) < len(slots.keys):
            problems = self._decide_others()
        problems |= contradictions(slots, self.values, self.places, verify=rules.verify)
        self.fit.errors += [problems[index] for index in sorted(problems)]
        self.fit.failed |= problems.keys()

    def _ordinary(self) -> list[int]:
        current = self.slots.current
        bulk = [index for index, yes in enumerate(alike(current, self.values)) if yes]
        tensors = current if len(bulk) == len(current) else [current[index] for index in bulk]
        if all(map(torch.Tensor.is_contiguous, tensors)) and not any(map(torch.Tensor.is_inference, tensors)):
            return bulk
        return [index for index in bulk if _unwritable(current[index]) is None]

    def _decide_others(self) -> dict[int, str]:
        """Decide about each slot that is not in the bulk; gives those that cannot be done, with what is wrong."""
        bulk, problems = set(self.bulk), {}
        for index in range(len(self.slots.keys)):
            if index not in bulk:
                try:
                    self._decide(index)
                except MisfitError as misfit:
                    problems[index] = str(misfit)
        self.bulk.sort()
        return problems

    def _decide(self, index: int) -> None:
        key, param = self.slots.keys[index], self.slots.current[index]
        value = self.values[index] = checked(key, param, self.values[index])
        if is_lazy(value):
            return
        if not is_lazy(param) and param.is_meta:
            self.fit.empty.append(key)
            self.fit.failed.add(index)
            return
        if is_on_meta(value):
            empty = NotImplementedError("Cannot copy out of meta tensor; no data!")
            raise MisfitError(failed(key, param.shape, shape_of(value), empty))
        reason = _unwritable(param)
        if reason is not None:
            raise MisfitError(failed(key, param.shape, shape_of(value), RuntimeError(reason)))
        value = self.values[index] = self._cast(key, param, value)
        if _is_ordinary(param):
            if isinstance(value, Leaf):
                self.arriving.append(index)
                return
            if _is_ordinary(value):
                self.bulk.append(index)
                return
        self.values[index] = value = read_now(value, verify=self.rules.verify)
        _try(key, param, value)
        self.tried.append(index)

    def _cast(self, key: str, param: Any, value: Any) -> Any:
        """Note what becomes of the elements, and raise MisfitError where the rules refuse that."""
        found = value.dtype if isinstance(value, Compound) else _dtype_of(value)
        wanted = _dtype_of(param)
        if found is None or wanted is None:
            return value
        kind = cast_kind(lambda: read_now(value, verify=self.rules.verify), found, wanted)
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
        current, failed_ones = self.slots.current, self.fit.failed
        arrivals: list[Arrival] = [(current[i], self.values[i]) for i in self.arriving if i not in failed_ones]
        tried = [i for i in self.tried if i not in failed_ones]
        bulk = [i for i in self.bulk if i not in failed_ones] if failed_ones else self.bulk
        values = self._unaliased(bulk)
        if self.rules.verify:
            verify(leaf for _, leaf in arrivals)
        torn = sum(nbytes_of(leaf) for _, leaf in arrivals) > BACKUP
        written = [*(() if torn else [tensor for tensor, _ in arrivals]), *(current[i] for i in tried)]
        put_back = keep(written)
        try:
            arrive(arrivals)
            with torch.no_grad():
                for i in tried:
                    current[i].copy_(self.values[i])
        except BaseException as error:
            put_back()
            if torn:
                error.add_note(f"{len(arrivals)} tensors of the model were being overwritten and hold torn values.")
            raise
        copy_all(current if bulk is self.bulk and len(bulk) == len(current) else [current[i] for i in bulk], values)
        return ()

    def _unaliased(self, bulk: list[int]) -> list[Any]:
        """The values to be copied; those that lie in memory that will be written before they are read are cloned."""
        values = [self.values[i] for i in bulk]
        theirs = addresses(values)
        if set(theirs).isdisjoint(self.places):
            return values
        places = set(self.places)
        return [
            value.detach().clone() if where and where in places and where != self.places[i] else value
            for i, value, where in zip(bulk, values, theirs)
        ]


def _is_ordinary(tensor: Any) -> bool:
    if type(tensor) not in ORDINARY or tensor.layout is not torch.strided:
        return False
    dtype = DTYPES_OF_TORCH.get(tensor.dtype)
    return not tensor.is_nested and dtype is not None and dtype.kind in ("float", "complex", "int", "uint", "bool")


def _unwritable(tensor: Any) -> str | None:
    """What forbids to copy into the tensor, in PyTorch's words; it would say so only when the elements are changed."""
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
        raise MisfitError(failed(key, param.size(), shape_of(value), error)) from error


def _dtype_of(value: Any) -> Any:
    return value.spec.dtype if isinstance(value, Leaf) else DTYPES_OF_TORCH.get(value.dtype)
