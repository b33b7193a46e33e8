"""The ArrayLibrary of torch: tensors to leaves, and leaves to tensors.

A leaf of a tensor aliases its memory. Sparse, quantised and nested tensors and those that wrap others become Compounds of
such leaves, a DTensor becomes Parts. A tensor whose class gives no access to its elements (lazy parameters, FakeTensor) has
no leaf.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Any, cast

import numpy as np
import torch
from torch.nn.parameter import Parameter, is_lazy

from statedict.errors import FormatError, MissingDependencyError, SaveError
from statedict.state import DTYPES, PLAIN, Compound, Leaf, RowKind, Spec, Table, Traits, check_reach, rows_of

from ._allowed import callers_globals
from ._compound import compound_of, make_compound
from ._dtensor import is_sharded, local_of, parts_of
from ._dtypes import CARRIERS, DTYPES_OF_TORCH, TORCH_DTYPES
from ._kinds import kinds_of
from ._memory import storage_of
from ._wrapper import is_wrapped, made_if_allowed, taken_apart

_OWN_CLASSES = (torch.Tensor, Parameter)
_STORAGES = (torch.UntypedStorage, torch.TypedStorage)
_REQUIRES_GRAD = PLAIN._replace(requires_grad=True)
_ATTRIBUTES = attrgetter("__dict__")
# The dtypes that both NumPy and torch have.
_FLOATS, _INTEGERS = ("float64", "float32", "float16", "complex128", "complex64"), ("int64", "int32", "int16", "int8")
_NUMPY = {DTYPES[name]: DTYPES[name].numpy for name in (*_FLOATS, *_INTEGERS, "uint8", "bool")}


class TorchLibrary:
    """The ArrayLibrary of torch."""

    name = "torch"

    def leaf(self, array: torch.Tensor) -> Leaf | Compound | None:
        kind: type[Any] = type(array)
        if kind in _STORAGES:
            return _storage_leaf(array)
        if kind not in _OWN_CLASSES and is_out_of_reach(array):
            if is_sharded(array):
                return _sharded_leaf(array)
            taken = taken_apart(array, self.leaf)
            return None if taken is None else taken.compound
        if array.layout is not torch.strided or array.is_nested or array.is_quantized:
            return compound_of(array, traits_of(array), strided_leaf)
        return strided_leaf(array, traits_of(array))

    def table(self, arrays: Sequence[Any]) -> Table | None:
        # A quick test: most views have an offset, so the last tensor usually shows whether there are views.
        if not isinstance(arrays[-1], torch.Tensor) or arrays[-1].storage_offset():
            return None
        # Column-wise: each line is a loop in C.
        found = kinds_of(arrays)
        if found is None or any(map(_ATTRIBUTES, arrays)):
            return None
        kinds, which = found
        specs = [Spec(DTYPES_OF_TORCH[kind.dtype], tuple(kind.shape), kind.strides) for kind in kinds]
        # Without gaps between the elements, a tensor that covers its whole storage has the offset 0.
        if any(spec.reach != spec.numel for spec in specs) or any(
            k.requires_grad and k.type is torch.Tensor for k in kinds
        ):
            return None
        owners = list(map(torch.Tensor.untyped_storage, arrays))
        traits = [Traits(True, kind.requires_grad) if kind.type is Parameter else PLAIN for kind in kinds]
        pointers = list(map(torch.UntypedStorage.data_ptr, owners))
        sizes = list(map(torch.UntypedStorage.nbytes, owners))
        table = Table(None, list(map(RowKind, specs, traits)), which, pointers, sizes, owners)
        is_whole = table.of_each(lambda kind: kind.spec.nbytes) == sizes
        return table if is_whole and all(pointers) and all(sizes) else None

    def arrays(self, leaves: Sequence[Leaf], memory: Sequence[memoryview]) -> list[torch.Tensor]:
        rows = rows_of(leaves)
        if rows is not None:
            return _over_rows(rows, memory)
        users = Counter([leaf.storage.key for leaf in leaves])
        shared: dict[Hashable, torch.UntypedStorage] = {}
        # Leaves of one shape share their Spec, so its size is computed once.
        specs = {id(leaf.spec): leaf.spec for leaf in leaves}
        whole = {number: _whole_nbytes(spec) for number, spec in specs.items()}
        made = []
        for leaf, raw in zip(leaves, memory):
            spec = leaf.spec
            if whole[id(spec)] == len(raw) and users[leaf.storage.key] == 1:
                tensor = over(spec, raw)
            else:
                tensor = _part(leaf, raw, shared)
            made.append(tensor if leaf.traits is PLAIN else with_traits(tensor, leaf.traits))
        return made

    def compound(self, value: Compound, parts: dict[str, Any]) -> Any:
        if not is_wrapped(value):
            return with_traits(make_compound(value, parts), value.traits)
        made = made_if_allowed(value, parts)
        if made is not None:
            return made
        leaves = {role: strided_leaf(part) for role, part in parts.items()}
        return Compound(value.layout, value.dtype, value.shape, leaves, value.facts, value.traits)

    def parts(self, array: Any) -> Any:
        """The inner tensors of a wrapper class whose attributes are not plain data; for a lazy tensor, its dtype."""
        if is_lazy(array):
            return (array.dtype,)
        if not hasattr(array, "__tensor_flatten__"):
            return None
        names, context = array.__tensor_flatten__()
        return {name: getattr(array, name) for name in names}, context


def _storage_leaf(storage: Any) -> Leaf:
    """Return a bare storage (which `torch.save` can write) as a tensor of all its elements; as bytes if it is untyped."""
    dtype = getattr(storage, "dtype", torch.uint8)
    untyped = getattr(storage, "_untyped_storage", storage)
    return strided_leaf(torch.empty(0, dtype=dtype, device=untyped.device).set_(untyped))


def _sharded_leaf(tensor: Any) -> Leaf | None:
    """The Parts of a DTensor; None if its local tensor does not give access to its elements."""
    local = local_of(tensor)
    if is_out_of_reach(local) or local.layout is not torch.strided or local.is_quantized:
        return None
    traits = Traits(isinstance(tensor, Parameter), tensor.requires_grad)
    return parts_of(tensor, traits, lambda local: strided_leaf(local, traits_of(local)))


def traits_of(tensor: torch.Tensor) -> Traits:
    """The properties of a tensor besides its elements."""
    kind, attributes = type(tensor), tensor.__dict__
    if kind is torch.Tensor and not attributes and not tensor.is_conj() and not tensor.is_neg():
        return _REQUIRES_GRAD if tensor.requires_grad else PLAIN
    return Traits(
        parameter=isinstance(tensor, Parameter),
        requires_grad=tensor.requires_grad,
        conj=tensor.is_conj(),
        neg=tensor.is_neg(),
        subclass=None if kind in _OWN_CLASSES else f"{kind.__module__}.{kind.__qualname__}",
        attributes=dict(attributes) if attributes else None,
    )


def strided_leaf(tensor: torch.Tensor, traits: Traits = PLAIN) -> Leaf:
    """The leaf of a strided tensor; it aliases the tensor's storage."""
    dtype = DTYPES_OF_TORCH.get(tensor.dtype)
    if dtype is None:
        raise SaveError(f"tensors of dtype {tensor.dtype} are not supported: convert them first")
    spec = Spec(dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))
    # Unchecked: FSDP frees storages between steps, and then only reading them is an error.
    return Leaf.unchecked(spec, storage_of(tensor), traits)


def is_out_of_reach(tensor: torch.Tensor) -> bool:
    wraps = torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.Python)
    return wraps or is_lazy(tensor)


def _whole_nbytes(spec: Spec) -> int:
    """The size of a storage that the tensor would cover completely; -1 if it cannot."""
    return (spec.nbytes or -1) if spec.is_contiguous and not spec.offset else -1


def over(spec: Spec, raw: memoryview) -> torch.Tensor:
    """A contiguous tensor over memory that contains exactly its elements. (Faster through NumPy, if it has the dtype.)"""
    if raw.readonly:
        raw = memoryview(bytearray(raw))
    carrier = _NUMPY.get(spec.dtype)
    if carrier is not None:
        return torch.from_numpy(np.ndarray(spec.shape, carrier, raw))
    flat = torch.frombuffer(raw, dtype=_dtype(spec))
    return flat if spec.shape == flat.shape else flat.view(spec.shape)


def _over_rows(rows: Table, memory: Sequence[memoryview]) -> list[torch.Tensor]:
    """Return tensors over memory for many leaves that cover their whole storages; in loops in C if NumPy has the dtypes."""
    kinds, ndarray = rows.used(), cast(Any, np.ndarray)
    if all(kind.spec.dtype in _NUMPY for kind in kinds):
        shapes = rows.of_each(lambda kind: kind.spec.shape)
        carriers = rows.of_each(lambda kind: _NUMPY.get(kind.spec.dtype))
        made = list(map(torch.from_numpy, map(ndarray, shapes, carriers, memory)))
    else:
        made = list(map(over, rows.of_each(lambda kind: kind.spec), memory))
    if all(kind.traits is PLAIN for kind in kinds):
        return made
    return list(map(with_traits, made, rows.of_each(lambda kind: kind.traits)))


def _part(leaf: Leaf, raw: memoryview, shared: dict[Hashable, torch.UntypedStorage]) -> torch.Tensor:
    """A tensor that shares its storage with others, or does not fill it."""
    spec, key = leaf.spec, leaf.storage.key
    dtype = _dtype(spec)
    if not len(raw):
        check_reach(spec, leaf.storage)
        return torch.empty_strided(spec.shape, spec.strides, dtype=dtype, device="cpu")
    if key not in shared:
        whole = memoryview(bytearray(raw)) if raw.readonly else raw
        shared[key] = torch.frombuffer(whole, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=dtype, device="cpu").set_(shared[key], spec.offset, spec.shape, spec.strides)


def _dtype(spec: Spec) -> torch.dtype:
    found = CARRIERS.get(spec.dtype) or TORCH_DTYPES.get(spec.dtype)
    if found is None:
        version = torch.__version__.partition("+")[0]
        needed_for = f"the dtype {spec.dtype}, which PyTorch {version} does not have,"
        raise MissingDependencyError(f"torch>{version}", needed_for=needed_for)
    return found


def with_traits(tensor: torch.Tensor, traits: Traits) -> torch.Tensor:
    """The tensor with its saved properties."""
    try:
        if traits.conj:
            tensor = tensor.conj()
        if traits.neg:
            tensor = torch._neg_view(tensor)
        if traits.subclass is not None:
            tensor = _as_allowed(tensor, traits.subclass)
        if traits.parameter and not isinstance(tensor, Parameter):
            return Parameter(tensor, traits.requires_grad)
        return tensor.requires_grad_() if traits.requires_grad else tensor
    except (RuntimeError, NotImplementedError) as error:
        raise FormatError(f"the properties saved for a {tensor.dtype} tensor do not fit it: {error}") from error


def _as_allowed(tensor: torch.Tensor, path: str) -> torch.Tensor:
    """The tensor as an instance of the class at `path`, if the program has allowed that class; else unchanged."""
    kind = callers_globals().get(path)
    return tensor if kind is None else tensor.as_subclass(kind)


TORCH = TorchLibrary()
