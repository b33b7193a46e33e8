"""The range of the elements of a NumPy array, for `cast_kind`: one pass, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensors._dtype import DType
from ._cast_kind import ValueRange, joined

Array = np.ndarray[Any, Any]
# Small floats are widened this many elements at a time.
PIECE = 1 << 20


def value_range(array: Array, dtype: DType) -> ValueRange:
    """Return the range of the elements of an array that carries `dtype`.

    >>> from statedict.state import dtype
    >>> value_range(np.array([3.0, -np.inf, 1.5]), dtype("float64"))
    ValueRange(low=1.5, high=3.0, nan=False, infinite=True)
    """
    parts = [array]
    if dtype.is_complex:
        names = array.dtype.names is not None
        parts = [array["real"], array["imag"]] if names else [array.real, array.imag]
    return joined(_of_piece(piece) for part in parts for piece in _pieces(part))


def _pieces(part: Array) -> Iterable[Array]:
    if not part.size:
        return ()
    if part.dtype.kind in "biu" or part.dtype.itemsize >= 4:
        return (part,)
    flat = part.reshape(-1)
    return (flat[n : n + PIECE].astype(np.float32) for n in range(0, flat.size, PIECE))


def _of_piece(piece: Array) -> ValueRange:
    with np.errstate(invalid="ignore"):
        low, high = piece.min(), piece.max()
    if piece.dtype.kind in "biu" or (np.isfinite(low) and np.isfinite(high)):
        return ValueRange(low.item(), high.item())
    finite = piece[np.isfinite(piece)]
    low, high = (finite.min().item(), finite.max().item()) if finite.size else (0, 0)
    return ValueRange(low, high, bool(np.isnan(piece).any()), bool(np.isinf(piece).any()))
