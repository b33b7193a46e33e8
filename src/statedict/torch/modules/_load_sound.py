"""Fill slots all or nothing: first decide about each, then write all.

Theory of operation. Ordinary pairs (same shape, dtype and device) are found column-wise, and copying them always succeeds;
so are leaves of a file that can be read straight into their tensors. Every other pair is examined by itself: what PyTorch
would refuse becomes a line of its error text; casts are judged by the elements; if the result is not known in advance
(subclasses, sparse and quantised tensors), the copy is tried first. `act` does what may still fail, which is reading,
before what cannot, and restores what it has written if it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from statedict.state import Compound, Leaf, RowKind, Table, cast_kind, not_put_back, single_rows, table_of
from statedict.tree import Cast, Fit, Rules, Slots, lossy

from ..tensors._copy_pairs import ORDINARY, addresses, alike, copy_all, failed
from ..tensors._dtensor import any_sharded
from ..tensors._dtypes import DTYPES_OF_TORCH, TORCH_DTYPES
from ..tensors._extent import extent
from ..tensors._wrapper import is_wrapper
from ._assigning import Assigning
from ._backup import keep
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
from ._shared_reads import share_reads
from ._swapping import Swapping
from ._ties import contradictions, places

PLAIN_KINDS = frozenset({"float", "complex", "int", "uint", "bool"})
_SHAPE, _DTYPE, _ON_CPU, _LAYOUT, _NESTED = map(attrgetter, ("shape", "dtype", "is_cpu", "layout", "is_nested"))
_TENSOR = torch.Tensor
FREED = "Its storage has been freed, as FSDP does between steps; gather or allocate it first."


def fit_sound(slots: Slots, rules: Rules) -> Fit:
    """Return a Fit that has changed nothing yet; its `act` does the rest, or raises and changes nothing."""
    if torch.__future__.get_swap_module_params_on_conversion():
        return Swapping(slots, rules).fit
    if slots.assign:
        return Assigning(slots, rules, fit_sound).fit
    if any_sharded(slots.current, slots.values):
        share_reads(slots, rules)
        return fit_sharded(slots, lambda local: _Copying(local, rules).fit)
    return _Copying(slots, rules).fit


class _Copying:
    """Slots whose tensors keep their memory and get the elements of their values."""

    def __init__(self, slots: Slots, rules: Rules) -> None:
        self.rules = rules
        self.slots = slots
        self.fit = Fit(self.act)
        self.places = places(slots.current)
        self.written = set(self.places)
        self.values: list[Any] = list(slots.values)
        # The ways to fill a slot, as indices: 32,000 objects would cost as much as copying the elements.
        self.bulk: Sequence[int] = self._ordinary()
        self.direct: Sequence[int] = []
        self.arriving: list[int] = []
        self.tried: list[int] = []
        # The inner tensors of wrappers, and their leaves, by slot.
        self.parts: dict[int, list[tuple[Any, Leaf]]] = {}
        problems: dict[int, str] = {}
        self.table = table_of(self.values) if not self.bulk and 0 not in self.places else None
        if self.table is not None and are_direct(slots.current, self.table):
            self.direct = range(len(self.values))
        elif len(self.bulk) < len(slots.keys):
            problems = self._decide_others(list(self.bulk))
        ties = contradictions(slots, self.values, self.places, len(self.written), verify=rules.verify)
        self.fit.refuse(ties | problems)

    def _ordinary(self) -> Sequence[int]:
        current = self.slots.current
        bulk = alike(current, self.values)
        if not bulk:
            return bulk
        tensors = current if len(bulk) == len(current) else [current[index] for index in bulk]
        # The address is 0 for a tensor without elements, or whose memory was freed: copying that crashes the process.
        if (
            all(map(torch.Tensor.is_contiguous, tensors))
            and not any(map(torch.Tensor.is_inference, tensors))
            and 0 not in self.places
            and 0 not in addresses(self.values)
        ):
            return bulk
        return [i for i in bulk if _unwritable(current[i]) is None and not _is_freed(self.values[i])]

    def _decide_others(self, bulk: list[int]) -> dict[int, str]:
        """Decide about each slot that is not in the bulk; return the problem of each that cannot be filled."""
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
        """Decide how the slot is filled; return True if it is copied with the bulk."""
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
        """Record how the elements are cast; raise MisfitError if the rules refuse that."""
        found = value.dtype if isinstance(value, Compound) else _dtype_of(value)
        wanted = _dtype_of(param)
        if found is None or wanted is None:
            return value
        kind = cast_kind(found, wanted, lambda: extent(read_now(value, verify=self.rules.verify)))
        if kind is None:
            return value
        cast = Cast(key, found.name, wanted.name, kind)
        self.fit.casts.append(cast)
        if kind in self.rules.refused:
            raise MisfitError(lossy(cast))
        # Otherwise PyTorch would warn of the cast that was just allowed, and some programs make warnings errors.
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
        """Fill the slots for which that may still fail; restore all of them if it does."""
        current = self.slots.current
        direct = self._going(self.direct)
        others = [(current[i], self.values[i]) for i in self._going(self.arriving)]
        others += [pair for i in self._going(list(self.parts)) for pair in self.parts[i]]
        tried = self._going(self.tried)
        # There is no table of all values if a tensor has no elements.
        table = self.table if len(direct) == len(self.values) else None
        table = table or table_of([self.values[i] for i in direct])
        arrivals = Arrivals([current[i] for i in direct], table or Table(None), others)
        put_back = keep(current[i] for i in tried) if tried else None
        try:
            with torch.no_grad():
                for i in tried:
                    current[i].copy_(self.values[i])
            alone = self.rules.may_complete and not (tried or self.bulk)
            arrivals.fill(verify=self.rules.verify, joint=self.rules.together, may_complete=alone)
        except BaseException as error:
            if put_back is not None:
                put_back()
            if arrivals.changed:
                names = {id(tensor): key for key, tensor in zip(self.slots.keys, current)}
                error.add_note(not_put_back([names[id(tensor)] for tensor in arrivals.changed]))
            raise

    def _going(self, indices: Sequence[int]) -> Sequence[int]:
        return [i for i in indices if i not in self.fit.failed] if self.fit.failed else indices

    def _copies(self) -> tuple[list[Any], list[Any]]:
        """Return the tensors of the bulk and their values, cloned if they would be overwritten before they are read."""
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
    """Return whether an ordinary tensor has elements but no memory for them."""
    if type(tensor) not in ORDINARY or tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
        return False
    return bool(tensor.numel()) and not tensor.untyped_storage().data_ptr()


def _unwritable(tensor: Any) -> str | None:
    """Return why the tensor cannot be written to, in PyTorch's words; PyTorch would raise only while copying."""
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
    """Copy the value into a clone of the parameter, to find out whether PyTorch accepts it."""
    try:
        with torch.no_grad():
            param.detach().clone().copy_(value)
    except Exception as error:  # PyTorch would have raised the same
        reason = wrapper_reason(param, value) if is_wrapper(param) or is_wrapper(value) else None
        raise MisfitError(
            unfit(key, reason) if reason else failed(key, param.size(), shape_of(value), error)
        ) from error


def _dtype_of(value: Any) -> Any:
    return value.spec.dtype if isinstance(value, Leaf) else DTYPES_OF_TORCH.get(value.dtype)


def is_direct(tensor: Any, value: Any) -> bool:
    """Return whether the value is a leaf of a file with the layout of the tensor, and the tensor has memory."""
    return type(value) is Leaf and are_direct([tensor], single_rows([value])) and not _is_freed(tensor)


def are_direct(tensors: Sequence[Any], table: Table) -> bool:
    """Return whether each row can be read straight into its tensor, which has memory: same shape and dtype, row-major.

    Column-wise, which takes 0.7 µs a pair; the test may be too strict.
    """
    return (
        all(map(_is_plain, table.used()))
        # Live memory may be that of the tensor itself.
        and not any(
            one.is_live for one in {id(storage.source): storage for storage in table.single_storages()}.values()
        )
        and ORDINARY.issuperset(map(type, tensors))
        and not any(map(_NESTED, tensors))
        and {torch.strided}.issuperset(map(_LAYOUT, tensors))
        and all(map(_ON_CPU, tensors))
        and list(map(_DTYPE, tensors)) == table.of_each(lambda kind: TORCH_DTYPES.get(kind.spec.dtype))
        and list(map(_SHAPE, tensors)) == table.of_each(lambda kind: kind.spec.shape)
        and all(map(_TENSOR.is_contiguous, tensors))
        and not any(map(_TENSOR.is_inference, tensors))
        and not any(map(_TENSOR.is_neg, tensors))
        # Only complex tensors can be conjugated.
        and not (any(k.spec.dtype.kind == "complex" for k in table.used()) and any(map(_TENSOR.is_conj, tensors)))
    )


def _is_plain(kind: RowKind) -> bool:
    """Return whether the elements are numbers that both sides have, in row-major order, and not conjugated or negated."""
    spec, traits, location = kind
    plain = spec.dtype.kind in PLAIN_KINDS and spec.dtype in TORCH_DTYPES
    return plain and spec.is_contiguous and not (traits.conj or traits.neg) and location != "meta"
