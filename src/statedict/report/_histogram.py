"""A histogram of numbers whose range is not known in advance: one pass, any number of pieces.

The width of a bin is a power of two, and its edges are multiples of the width. If a piece extends beyond the bins, the width
is doubled and neighbours are joined, which is exact. The histograms of two tensors have common edges.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# Doubling the width leaves at least half of the bins, which is still enough to show a shape.
BINS = 96
FEWEST = 10
# Exponents of the width: a width and its inverse are normal float64 numbers.
NARROWEST, WIDEST = -1000, 1000
# Larger numbers are counted as this: float64 might not be able to represent the edge of their bin.
LARGEST = 2.0**1000


class Histogram:
    """Counts of numbers in at most BINS bins of equal width.

    >>> import numpy as np
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
