"""Compare two tensors of the same shape piece by piece, in the memory of two pieces.

Elements are compared as numbers: NaN equals NaN, 0.0 equals -0.0, and a float16 may equal a float32. Differences, norms and
cosine are computed in float64, over the elements that are finite on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, starmap
from math import frexp, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import Leaf, Parts, cast_array, pieces, region, whole_box
from statedict.state import dtype as find_dtype

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# Elements of one piece (8 MB in float64): small enough for the cache, large enough for fast reads.
PIECE = 1 << 20
# The squares of these may overflow float64; those of all other dtypes do not.
_EXTREME = frozenset({"float64", "complex128"})


class Change(NamedTuple):
    """How two tensors differ.

    Attributes:
        elements: the number of elements; of a sharded tensor, of those that this process has.
        changed: the number of elements that differ.
        max_abs: the largest absolute difference.
        distance: the norm of the difference.
        relative: that norm divided by the norm of the first tensor; infinite if that is zero.
        cosine: the cosine of the angle between the two; 1 if both are zero.
        nan: the number of elements that differ and are NaN or infinite on at least one side.
    """

    elements: int
    changed: int
    max_abs: float
    distance: float
    relative: float
    cosine: float
    nan: int


def compare(a: Leaf, b: Leaf, piece: int = PIECE) -> Change | None:
    """Return how the elements of `b` differ from those of `a`, or None if they are equal; the shapes must be equal.

    The norms of equal pieces are only needed if a later piece differs; then both tensors are read again.

    >>> from statedict.state import leaf_of
    >>> change = compare(leaf_of(np.array([3.0, 4.0])), leaf_of(np.array([3.0, 5.0])))
    >>> change.changed, change.max_abs, change.relative
    (1, 1.0, 0.2)
    """
    if a.identity == b.identity:
        return None
    both = _pieces_here(a, b, piece)
    first = next(both, None)
    if first is not None and not _equal(*first):
        return _change(a, b, chain([first], both))
    if all(starmap(_equal, both)):
        return None
    # Pieces of strided and of computed tensors keep the whole tensors in memory.
    del first, both
    return _change(a, b, _pieces_here(a, b, piece))


def _change(a: Leaf, b: Leaf, both: Iterable[tuple[Array, Array]]) -> Change:
    """Return how the elements differ; `both` are all pieces."""
    import numpy as np

    sums = _Sums(extreme=not _EXTREME.isdisjoint({a.spec.dtype.name, b.spec.dtype.name}))
    elements, changed, odd, largest = 0, 0, 0, 0.0
    for left, right in both:
        elements += left.size
        left, right = numbers(left), numbers(right)
        with np.errstate(all="ignore"):
            differs, finite = _differs(left, right), np.isfinite(left) & np.isfinite(right)
            changed += int(differs.sum())
            odd += int((differs & ~finite).sum())
            wide = _wide(left, finite), _wide(right, finite)
            largest = max(largest, sums.add(*wide), _furthest(left, right))
    return Change(elements, changed, largest, sums.distance, sums.relative, sums.cosine, odd)


def same(a: Leaf, b: Leaf, piece: int = PIECE) -> bool:
    """Whether all elements are equal; stops at the first piece with a difference.

    Tensors on PyTorch's meta device, which have no elements, are equal to each other and differ from all others."""
    if a.identity == b.identity:
        return True
    if is_meta(a) or is_meta(b):
        return is_meta(a) and is_meta(b)
    return all(starmap(_equal, _pieces_here(a, b, piece)))


def _equal(left: Array, right: Array) -> bool:
    import numpy as np

    if left.dtype == right.dtype and np.array_equal(left.view(np.uint8), right.view(np.uint8)):
        return True
    return not _differs(numbers(left), numbers(right)).any()


def _pieces_here(a: Leaf, b: Leaf, piece: int) -> Iterator[tuple[Array, Array]]:
    """Yield both tensors piece by piece; if this process has only parts of one of them, the elements of these parts."""
    divided = next((leaf for leaf in (a, b) if isinstance(leaf, Parts) and not leaf.is_whole), None)
    boxes = [whole_box(a.spec.shape)] if divided is None else [part.box for part in divided.pieces]
    for box in boxes:
        if 0 not in box.sizes:
            yield from zip(pieces(region(a, box), piece), pieces(region(b, box), piece))


def is_meta(leaf: Leaf) -> bool:
    """Whether the tensor is on the meta device: it has a shape but no elements."""
    return leaf.storage.location == "meta"


def _differs(left: Array, right: Array) -> Array:
    """Return where two arrays differ; NaN equals NaN."""
    differs: Array = (left != right) & ~((left != left) & (right != right))
    return differs


def numbers(array: Array) -> Array:
    """Return the elements in a dtype that NumPy can compute with: small floats as float32, complex32 as complex64."""
    import numpy as np

    if array.dtype.names:
        return cast_array(array, find_dtype("complex64"))
    return array.astype(np.float32) if array.dtype.itemsize < 4 and array.dtype.kind not in "biu" else array


def _wide(array: Array, finite: Array) -> Array:
    """Return the array in float64 or complex128, with zero for elements that are not finite."""
    import numpy as np

    wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    wide[~finite] = 0
    return wide


def _furthest(left: Array, right: Array) -> float:
    """Return the largest difference of integers exactly, which float64 cannot always represent; 0 for other dtypes."""
    import numpy as np

    if left.dtype != right.dtype or left.dtype.kind not in "iu":
        return 0.0
    unsigned = np.dtype(f"u{left.dtype.itemsize}")
    apart = np.maximum(left, right).view(unsigned) - np.minimum(left, right).view(unsigned)
    return float(apart.max(initial=0))


class _Sums:
    """Accumulates norms and products of two tensors piece by piece.

    `extreme`: squares of the elements may overflow, so the elements are divided by a scale.
    """

    def __init__(self, *, extreme: bool) -> None:
        self._extreme = extreme
        self._scale = 0.0
        self._sums: tuple[float, ...] = (0.0,) * 4  # of a·a, b·b, a·b and d·d

    def add(self, left: Array, right: Array) -> float:
        """Add one piece of both, in float64 or complex128; return the largest absolute difference."""
        import numpy as np

        scale = 1.0
        if self._extreme:
            top = max(float(np.abs(one).max(initial=0.0)) for one in (left, right))
            if not top:
                return 0.0
            if not 1e-100 < top < 1e100:
                scale = 2.0 ** (frexp(top)[1] - 1)
                left, right = left / scale, right / scale
        apart = right - left
        found = _dot(left, left), _dot(right, right), _dot(left, right), _dot(apart, apart)
        common = max(self._scale, scale)
        before, now = (self._scale / common) ** 2, (scale / common) ** 2
        self._sums = tuple(old * before + new * now for old, new in zip(self._sums, found))
        self._scale = common
        return float(np.abs(apart).max(initial=0.0)) * scale

    @property
    def distance(self) -> float:
        return sqrt(self._sums[3]) * self._scale

    @property
    def relative(self) -> float:
        aa, _, _, dd = self._sums
        return 0.0 if not dd else sqrt(dd / aa) if aa else float("inf")

    @property
    def cosine(self) -> float:
        aa, bb, ab, _ = self._sums
        if not aa or not bb:
            return 1.0 if aa == bb else 0.0
        return min(max(ab / (sqrt(aa) * sqrt(bb)), -1.0), 1.0)


def _dot(a: Array, b: Array) -> float:
    import numpy as np

    return float(np.vdot(a, b).real)
