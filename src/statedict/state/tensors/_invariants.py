"""Check that the parts of a sparse, quantised or nested tensor are consistent, on their NumPy arrays.

Each part was already checked against its storage. Indices beyond the shape would cause an out-of-bounds write when the
tensor is made dense: PyTorch 2.13 does not check them by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ...errors import FormatError
from ._expansion import require_in_proportion
from ._values import Compound

Array = np.ndarray[Any, Any]
Parts = Mapping[str, Array]


def check_parts(value: Compound, parts: Parts) -> None:
    """Raise FormatError if the parts of `value` are not consistent, or its layout is unknown."""
    check = CHECKS.get(value.layout)
    # The checks below read every element of the indices.
    require_in_proportion(value.parts.values())
    try:
        problem = "the layout is unknown" if check is None else check(value, parts)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise FormatError(f"the parts of a {value.layout} tensor are not consistent: {error}") from error
    if problem is not None:
        raise FormatError(f"the parts of a {value.layout} tensor are not consistent: {problem}")


def _coo(value: Compound, parts: Parts) -> str | None:
    indices, values, shape = parts["indices"], parts["values"], value.shape
    if indices.ndim != 2 or indices.dtype.kind != "i" or values.ndim < 1:
        return "its indices are not a matrix of integers"
    sparse, count = indices.shape
    if values.shape != (count, *shape[sparse:]) or sparse > len(shape):
        return f"{list(values.shape)} values for {count:,} indices into {list(shape)}"
    for axis, size in enumerate(shape[:sparse]):
        if not _within(indices[axis], size):
            return f"an index of dimension {axis} is out of range for size {size:,}"
    if value.facts.get("coalesced") and not _increase(indices):
        return "its indices are not sorted and unique"
    return None


def _compressed(value: Compound, parts: Parts) -> str | None:
    compressed, plain, values = parts["compressed_indices"], parts["plain_indices"], parts["values"]
    batch = compressed.ndim - 1
    blocked = value.layout in ("sparse_bsr", "sparse_bsc")
    rows, columns = value.shape[batch : batch + 2]
    if compressed.dtype.kind != "i" or plain.dtype.kind != "i" or plain.ndim != batch + 1:
        return "its indices are not integers, or have the wrong number of dimensions"
    if blocked:
        high, wide = values.shape[batch + 1 : batch + 3]
        if high < 1 or wide < 1 or rows % high or columns % wide:
            return f"blocks of {high}x{wide} do not fill {rows:,}x{columns:,}"
        rows, columns = rows // high, columns // wide
    if value.layout in ("sparse_csc", "sparse_bsc"):
        rows, columns = columns, rows
    count = plain.shape[-1]
    block = values.shape[batch + 1 : batch + 3] if blocked else ()
    if values.shape != (*value.shape[:batch], count, *block, *value.shape[batch + 2 :]):
        return f"{list(values.shape)} values for {count:,} indices into {list(value.shape)}"
    if compressed.shape != (*value.shape[:batch], rows + 1) or plain.shape[:-1] != compressed.shape[:-1]:
        return f"{list(compressed.shape)} compressed indices for {rows:,} rows"
    steps = np.diff(compressed, axis=-1)
    ends_right = (compressed[..., 0] == 0).all() and (compressed[..., -1] == count).all()
    if not ends_right or not _within(compressed, count + 1) or not _within(steps, columns + 1):
        return "its compressed indices do not match the number of values"
    if not _within(plain, columns):
        return f"an index is out of range for size {columns:,}"
    many = prod(value.shape[:batch])
    for ends, row in zip(compressed.reshape(many, rows + 1), plain.reshape(many, count)):
        first = np.zeros(count + 1, bool)
        first[ends] = True
        if (~first[1:count] & (np.diff(row) <= 0)).any():
            return "the indices of a row are not sorted and unique"
    return None


def _quantized(value: Compound, parts: Parts) -> str | None:
    if str(value.facts["scheme"]).endswith("per_tensor_affine"):
        return None
    axis = value.facts["axis"]
    if type(axis) is not int or not 0 <= axis < len(value.shape):
        return f"{axis!r} is not a valid axis"
    if parts["scales"].shape != (value.shape[axis],) or parts["zero_points"].shape != (value.shape[axis],):
        return f"{parts['scales'].shape} scales for {value.shape[axis]:,} channels"
    return None


def _nested(value: Compound, parts: Parts) -> str | None:
    sizes, strides, offsets = (parts[role].astype(object) for role in ("sizes", "strides", "offsets"))
    if sizes.ndim != 2 or sizes.shape != strides.shape or offsets.shape != sizes.shape[:1]:
        return "its sizes, strides and offsets have different lengths"
    for size, stride, offset in zip(sizes, strides, offsets):
        # Python integers: the product of sizes from a file may overflow.
        if min(*size, *stride, offset, 0) < 0:
            return "a size, stride or offset is negative"
        if all(size) and offset + sum((n - 1) * step for n, step in zip(size, stride)) >= parts["values"].size:
            return "its sizes extend beyond its values"
    return None


def _within(values: Array, size: int) -> bool:
    return not values.size or (int(values.min()) >= 0 and int(values.max()) < size)


def _increase(columns: Array) -> bool:
    """Whether the columns are strictly increasing in lexicographic order."""
    before, after = columns[:, :-1], columns[:, 1:]
    less = np.zeros(before.shape[1], bool)
    equal = np.ones(before.shape[1], bool)
    for low, high in zip(before, after):
        less |= equal & (low < high)
        equal &= low == high
    return bool(less.all())


CHECKS: dict[str, Callable[[Compound, Parts], str | None]] = {
    "sparse_coo": _coo,
    "sparse_csr": _compressed,
    "sparse_csc": _compressed,
    "sparse_bsr": _compressed,
    "sparse_bsc": _compressed,
    "quantized": _quantized,
    "nested": _nested,
    "meta": lambda value, parts: None,
    # Only its class knows how the parts of a wrapper fit together.
    "wrapper": lambda value, parts: None,
}
