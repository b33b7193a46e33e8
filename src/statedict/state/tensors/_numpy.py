"""Convert NumPy arrays to leaves, and leaves to NumPy arrays.

Tensors of dtypes that NumPy does not have are returned in their carrier (ml_dtypes for bfloat16; integers for quantised and
sub-byte types). Sparse and nested tensors stay Compounds of NumPy arrays, because NumPy does not have such arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...errors import BoundsError, FormatError
from ._dtype import DTYPES, DType
from ._expansion import require_in_proportion
from ._invariants import check_parts
from ._leaf import Leaf, Read, Spec, Storage, Traits, check_bounds
from ._values import Compound

Array = np.ndarray[Any, Any]


class _Live:
    """The Source of arrays in memory: `storage.where` is a memoryview of the bytes."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            into[:] = storage.where[start : start + len(into)]

    def verify(self, storages: Iterable[Storage]) -> None:
        """Do nothing: memory does not have checksums."""

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        view: memoryview = storage.where
        return None if writable and view.readonly else view


class NumpyLibrary:
    """The ArrayLibrary of NumPy."""

    name = "numpy"

    def leaf(self, array: Array) -> Leaf | None:
        dtype = dtype_of(array.dtype)
        # A tensor does not have a mask (`numpy.ma`), so a masked array is treated as a value that is not a tensor.
        if dtype is None or (type(array) is not np.ndarray and hasattr(array, "mask")):
            return None
        if array.dtype.byteorder == ">" or any(s < 0 or s % dtype.itemsize for s in array.strides):
            array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        start, stop = np.lib.array_utils.byte_bounds(array)
        owner = array
        while isinstance(owner.base, np.ndarray) and _encloses(owner.base, start, stop):
            owner = owner.base
        if not owner.flags.c_contiguous:
            owner = array = np.array(array, order="C")
            start = array.ctypes.data
        raw = bytes_of(owner)
        spec = Spec(
            dtype,
            array.shape,
            tuple(s // dtype.itemsize for s in array.strides),
            (start - owner.ctypes.data) // dtype.itemsize if owner.size else 0,
        )
        return Leaf(spec, Storage(LIVE, ("memory", owner.ctypes.data, owner.nbytes or id(owner)), owner.nbytes, raw))

    def table(self, arrays: Sequence[Any]) -> None:
        """Return None: single leaves are as fast."""

    def arrays(self, leaves: Sequence[Leaf], memory: Sequence[memoryview]) -> list[Array]:
        require_in_proportion(leaf for leaf in leaves if leaf.traits.conj or leaf.traits.neg)
        return [_resolved(as_array(leaf.spec, raw), leaf.traits) for leaf, raw in zip(leaves, memory)]

    def compound(self, value: Compound, parts: dict[str, Any]) -> Compound:
        check_parts(value, parts)
        leaves = {role: self._carrying(part, value.parts[role].spec.dtype) for role, part in parts.items()}
        return Compound(value.layout, value.dtype, value.shape, leaves, value.facts, value.traits)

    def _carrying(self, array: Array, dtype: DType) -> Leaf:
        """Return the leaf of an array that carries elements of `dtype`."""
        leaf = self.leaf(array)
        if leaf is None:
            raise FormatError(f"an array of dtype {array.dtype} cannot be a part of a tensor")
        return Leaf(leaf.spec._replace(dtype=dtype), leaf.storage)

    def parts(self, array: Array) -> tuple[object, ...]:
        return array.dtype, array.shape, array.tolist()


def as_array(spec: Spec, raw: memoryview) -> Array:
    """Return the array of `spec` as a view of the storage bytes `raw`; raises BoundsError if it extends beyond them."""
    carrier = spec.dtype.numpy
    if 0 in spec.shape:
        return np.empty(spec.shape, carrier)
    size = spec.dtype.itemsize
    try:
        if not len(raw):
            raise ValueError("NumPy does not check the length of an empty buffer")
        # The stride of a dimension of size 1 is not used, and may be too large for NumPy.
        strides = tuple(stride * size if n > 1 else size for n, stride in zip(spec.shape, spec.strides))
        return np.ndarray(spec.shape, carrier, raw, spec.offset * size, strides)
    except (TypeError, ValueError) as error:
        raise BoundsError(
            f"a tensor of shape {list(spec.shape)} extends beyond its storage of {len(raw):,} bytes"
        ) from error


def read_array(leaf: Leaf, *, verify: bool = True) -> Array:
    """Return the elements of a leaf: a view of its storage if that is in memory, else read into new memory.

    Reads only the bytes between the first and the last element. Lazy conjugate and negative bits are applied.
    """
    spec, storage = leaf.spec, leaf.storage
    if leaf.traits.conj or leaf.traits.neg:
        require_in_proportion([leaf])
    view = storage.source.view(storage) if verify else None
    if view is None:
        size = spec.dtype.itemsize
        start = spec.offset * size
        raw = bytearray(max(spec.reach * size - start, 0))
        storage.source.read_into([Read(storage, start, memoryview(raw))], verify=verify)
        view, spec = memoryview(raw), spec._replace(offset=0)
    return _resolved(as_array(spec, view), leaf.traits)


def _resolved(array: Array, traits: Traits) -> Array:
    """Apply PyTorch's lazy conjugate and negative bits; makes a copy if one is set."""
    if not (traits.conj or traits.neg) or array.dtype.kind == "b":
        return array
    if array.dtype.names is None:
        # NumPy's functions return a scalar for an array without dimensions.
        array = np.asarray(np.conj(array)) if traits.conj and array.dtype.kind == "c" else array
        return np.asarray(-array) if traits.neg else array
    halves = array.copy()
    for part, negative in (("real", traits.neg), ("imag", traits.neg != traits.conj)):
        if negative:
            halves[part] = -array[part]
    return halves


def bytes_of(array: Array) -> memoryview:
    """Return a view of the memory of a contiguous array as bytes."""
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(bytearray())


def dtype_of(dtype: np.dtype[Any]) -> DType | None:
    """Return the DType of a NumPy dtype; None for one that a tensor cannot have (text, objects, records)."""
    if dtype.names == ("real", "imag") and all(part == np.float16 for part, *_ in (dtype.fields or {}).values()):
        return DTYPES["complex32"]
    return DTYPES.get(dtype.name)


def _encloses(base: Array, start: int, stop: int) -> bool:
    low, high = np.lib.array_utils.byte_bounds(base)
    return low <= start and stop <= high and base.flags.c_contiguous


LIVE = _Live()
NUMPY = NumpyLibrary()
