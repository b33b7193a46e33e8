"""Measures of the elements of one tensor, from pieces, since it may be larger than memory: statistics, histogram, heat map.

A histogram does not know the range of its numbers in advance. The width of a bin is a power of two, and its edges are
multiples of the width. If a piece extends beyond the bins, the width is doubled and neighbours are joined, which is exact.
So the histograms of two tensors have common edges.

A heat map is a grid with few cells. If the matrix is not larger than the grid, a cell is one element. Otherwise a cell is
the root mean square of a block, so that large, dead and pruned weights stay visible; in a mean, weights of both signs would
cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# Elements of a piece: 2 MB as float64, which fits into the cache of one core on most machines.
PIECE = 1 << 18


def statistics(pieces: Iterable[Array]) -> dict[str, float | int | None]:
    """Return min, max, mean and (population) std of the finite elements, and the number of zeros, NaN and infinite ones.

    Complex elements are replaced by their magnitudes. min, max, mean and std are None if no element is finite.
    """
    found = Moments()
    for piece in pieces:
        found.add(*widened(piece))
    return found.values()


class Moments:
    """The values of `statistics`, accumulated piece by piece."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self._number, self._mean, self._squares = 0, 0.0, 0.0
        self._zeros = self._nans = self._infinities = 0

    def add(self, part: Array, finite: Array) -> None:
        """Add a piece, as returned by `widened`."""
        import numpy as np

        self._zeros += part.size - int(np.count_nonzero(part))
        if finite.size < part.size:
            nans = int(np.count_nonzero(np.isnan(part)))
            self._nans += nans
            self._infinities += part.size - finite.size - nans
        if finite.size:
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
            # Chan's update of mean and variance is numerically stable; a sum of squares is not.
            here = float(finite.mean())
            delta, number = here - self._mean, self._number + finite.size
            self._squares += float(((finite - here) ** 2).sum()) + delta**2 * self._number * finite.size / number
            self._mean += delta * finite.size / number
            self._number = number

    def values(self) -> dict[str, float | int | None]:
        """Return the statistics as plain values."""
        moments: dict[str, float | int | None] = dict.fromkeys(("min", "max", "mean", "std"))
        if self._number:
            std = math.sqrt(self._squares / self._number)
            moments = {"min": self.low, "max": self.high, "mean": self._mean, "std": std}
        return {**moments, "zeros": self._zeros, "nan": self._nans, "inf": self._infinities}


def widened(piece: Array) -> tuple[Array, Array]:
    """Return the elements as float64 (the magnitudes of complex ones), and those that are finite."""
    import numpy as np

    from statedict.plan import numbers

    plain = numbers(piece)
    part = np.abs(plain).astype(np.float64) if plain.dtype.kind == "c" else plain.astype(np.float64)
    fits = np.isfinite(part)
    return part, part if fits.all() else part[fits]


def elements(array: Array) -> Any:
    """Return the elements as nested lists for JSON: a complex element is [real, imaginary], one that is not finite is text
    (`"NaN"`, `"Infinity"`, `"-Infinity"`)."""
    import numpy as np

    from statedict.plan import numbers

    plain = numbers(array)
    if plain.dtype.kind == "c":
        plain = np.stack([plain.real, plain.imag], axis=-1)
    if plain.dtype.kind == "f" and not np.isfinite(plain).all():
        named = plain.astype(object)
        for name, places in (("NaN", np.isnan(plain)), ("Infinity", plain == np.inf), ("-Infinity", plain == -np.inf)):
            named[places] = name
        plain = named
    return plain.tolist()


# Doubling the width leaves at least half of the bins, which is still enough to show a shape.
BINS = 96
FEWEST = 10
# Exponents of the width: a width and its inverse are normal float64 numbers.
NARROWEST, WIDEST = -1000, 1000
# Larger numbers are counted as this: float64 might not be able to represent the edge of their bin.
LARGEST = 2.0**1000


class Histogram:
    """Counts of numbers in at most BINS bins of equal width.

    >>> found = Histogram(whole=True)
    >>> found.add(np.array([1.0, 1.0, 2.0]))
    >>> found.add(np.array([4.0]))
    >>> found.width, found.start, found.counts
    (1.0, 1.0, [2, 1, 0, 1])
    """

    def __init__(self, *, whole: bool = False) -> None:
        """`whole`: the numbers are integers, so bins are not narrower than 1."""
        import numpy as np

        self._exponent = 0 if whole else NARROWEST
        self._first = 0  # the index of the first bin: it begins at this many widths
        self._counts: Array = np.zeros(0, np.int64)
        self._low, self._high = math.inf, -math.inf

    @property
    def width(self) -> float:
        """The width of a bin."""
        return 2.0**self._exponent

    @property
    def start(self) -> float:
        """The lower edge of the first bin."""
        return self._first * self.width

    @property
    def counts(self) -> list[int]:
        """The count of each bin: numbers that are at least its lower edge and less than its upper edge."""
        return [int(count) for count in self._counts]

    def add(self, numbers: Array) -> None:
        """Count finite float64 numbers."""
        import numpy as np

        if not numbers.size:
            return
        low, high = float(numbers.min()), float(numbers.max())
        if high > LARGEST or low < -LARGEST:
            numbers = np.clip(numbers, -LARGEST, LARGEST)
            low, high = float(numbers.min()), float(numbers.max())
        self._reach(low, high)
        places = np.floor(numbers * 2.0**-self._exponent)
        places -= self._first
        self._counts += np.bincount(places.astype(np.intp), minlength=len(self._counts))

    def settle(self) -> None:
        """Join bins if there are too many for the number of values: they would be mostly empty."""
        import numpy as np

        counts = self._counts
        while len(counts) > max(FEWEST, 2 * math.isqrt(int(counts.sum()))):
            odd = self._first & 1
            joined = np.zeros((len(counts) + odd + 1) // 2, np.int64)
            np.add.at(joined, (np.arange(len(counts)) + odd) >> 1, counts)
            self._first, self._exponent, counts = self._first >> 1, self._exponent + 1, joined
        self._counts = counts

    def _reach(self, low: float, high: float) -> None:
        """Extend or widen the bins for numbers from `low` to `high`, keeping the counts."""
        import numpy as np

        self._low, self._high = min(low, self._low), max(high, self._high)
        exponent = max(self._exponent, _exponent(self._low, self._high))
        while (places := self._places(exponent))[1] - places[0] >= BINS:
            exponent += 1
        first, last = places
        counts = np.zeros(last - first + 1, np.int64)
        for place, count in enumerate(self._counts, self._first):
            # Python integers: the shift may be large.
            counts[(place >> exponent - self._exponent) - first] += count
        self._first, self._counts, self._exponent = first, counts, exponent

    def _places(self, exponent: int) -> tuple[int, int]:
        """Return the first and the last bin of that width for all numbers, including those already counted."""
        first, last = _place(self._low, exponent), _place(self._high, exponent)
        if not len(self._counts):
            return first, last
        before = [place >> exponent - self._exponent for place in (self._first, self._first + len(self._counts) - 1)]
        return min(first, before[0]), max(last, before[1])


def _exponent(low: float, high: float) -> int:
    """Return the exponent of a width for which [low, high] needs slightly more than BINS bins.

    If all numbers are equal, the width is as small as possible, because the next numbers may be close.
    """
    half = high / 2 - low / 2 if high > low else abs(high) * 2.0**-52  # divided first: the difference may overflow
    return min(max(math.frexp(half)[1] - BINS.bit_length(), NARROWEST), WIDEST) if half else NARROWEST


def _place(number: float, exponent: int) -> int:
    """Return the index of the bin of a number."""
    return math.floor(number * 2.0**-exponent)


# A matrix with longer rows is not drawn: its pieces are whole rows, which would be too large.
LONGEST = 1 << 22
# The value of a cell with an element that is not finite.
ODD = 255


class Heat:
    """The grid of one matrix: at most `side` × `side` cells.

    >>> found = Heat(2, 4, side=2)
    >>> found.add(np.array([3.0, 3.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]))
    >>> found.cells().tolist(), found.exact
    ([[3.0, 0.0], [1.0, 2.0]], False)
    """

    def __init__(self, rows: int, columns: int, side: int) -> None:
        import numpy as np

        self.rows, self.columns = rows, columns
        self.down, self.across = min(rows, side), min(columns, side)
        self._starts = _starts(columns, self.across)
        self._sums = np.zeros((self.down, self.across))
        self._row = 0

    @property
    def exact(self) -> bool:
        """Whether each cell is one element, with its sign."""
        return (self.down, self.across) == (self.rows, self.columns)

    def add(self, part: Array) -> None:
        """Add the next elements, as float64, in row-major order: a number of whole rows."""
        import numpy as np

        block = part.reshape(-1, self.columns)
        cells = (np.arange(self._row, self._row + len(block)) * self.down) // self.rows
        self._row += len(block)
        if self.exact:
            self._sums[cells] = block
            return
        starts = np.flatnonzero(np.diff(cells, prepend=-1))
        with np.errstate(all="ignore"):
            taller = np.add.reduceat(block * block, starts, axis=0)
            self._sums[cells[starts]] += np.add.reduceat(taller, self._starts, axis=1)

    def cells(self) -> Array:
        """Return the values of the grid; a cell with an element that is not finite is not finite."""
        import numpy as np

        if self.exact:
            return self._sums
        tall, wide = _lengths(self.rows, self.down), _lengths(self.columns, self.across)
        with np.errstate(all="ignore"):
            found: Array = np.sqrt(self._sums / np.outer(tall, wide))
        return found

    def packed(self) -> tuple[float, float, bytes]:
        """Return the grid with one byte per cell: the values of bytes 0 and 254, and the bytes; ODD is not finite."""
        import numpy as np

        cells = self.cells()
        fits = np.isfinite(cells)
        low, high = (float(cells[fits].min()), float(cells[fits].max())) if fits.any() else (0.0, 0.0)
        # Divided by two first, because the difference of two finite numbers may overflow.
        shares = (np.where(fits, cells, low) / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
        return low, high, np.where(fits, np.rint(shares * (ODD - 1)), ODD).astype(np.uint8).tobytes()


def matrix(shape: Sequence[int]) -> tuple[int, int] | None:
    """Return the rows and columns with which a tensor is drawn: its first dimension, and the product of the others, without
    dimensions of size 1; None if that is not a matrix, or too wide.

    >>> matrix((64, 3, 7, 7)), matrix((1, 5, 8)), matrix((5, 1))
    ((64, 147), (5, 8), None)
    """
    sizes = [size for size in shape if size != 1]
    if len(sizes) < 2 or 0 in sizes or prod(sizes[1:]) > LONGEST:
        return None
    return sizes[0], prod(sizes[1:])


def step(columns: int) -> int:
    """Return the number of elements of a piece of whole rows."""
    return columns * max(1, PIECE // columns)


def _starts(length: int, cells: int) -> Array:
    """Return where each cell's part of `length` begins: the indices i with i * cells // length equal to the cell."""
    import numpy as np

    return -(-np.arange(cells) * length // cells)


def _lengths(length: int, cells: int) -> Array:
    import numpy as np

    return np.diff(_starts(length, cells), append=length)
