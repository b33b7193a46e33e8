"""A histogram of numbers whose range is not known before they have all been seen: one pass, any number of pieces.

The width of a bin is a power of two and its edges are multiples of the width. So when a piece reaches further than the bins
do, the width is doubled and neighbours are joined, which is exact; and the histograms of two tensors have edges in common.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# A doubling of the width leaves at least half of them, and 49 still show a shape.
BINS = 96
FEWEST = 10
# Widths are normal numbers, and so is one over a width: 2**-1000 and 2**1000 are far from the ends of float64.
NARROWEST, WIDEST = -1000, 1000
# What is larger counts as this: an edge of its bin might be none that float64 has.
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
        """`whole`: the numbers are integers, for which bins narrower than 1 would tell nothing."""
        import numpy as np

        self._exponent = 0 if whole else NARROWEST
        self._first = 0  # the index of the first bin: it begins at this many widths
        self._counts: Array = np.zeros(0, np.int64)
        self._low, self._high = math.inf, -math.inf

    @property
    def width(self) -> float:
        """Of one bin."""
        return 2.0**self._exponent

    @property
    def start(self) -> float:
        """Where the first bin begins."""
        return self._first * self.width

    @property
    def counts(self) -> list[int]:
        """How many numbers are in each bin: at least its lower edge, less than its upper one."""
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
        """Join bins until there are no more than the numbers can fill: of few numbers, many bins show only gaps."""
        import numpy as np

        counts = self._counts
        while len(counts) > max(FEWEST, 2 * math.isqrt(int(counts.sum()))):
            odd = self._first & 1
            joined = np.zeros((len(counts) + odd + 1) // 2, np.int64)
            np.add.at(joined, (np.arange(len(counts)) + odd) >> 1, counts)
            self._first, self._exponent, counts = self._first >> 1, self._exponent + 1, joined
        self._counts = counts

    def _reach(self, low: float, high: float) -> None:
        """Make the bins wide and many enough for numbers from `low` to `high`, and those counted before."""
        import numpy as np

        self._low, self._high = min(low, self._low), max(high, self._high)
        exponent = max(self._exponent, _exponent(self._low, self._high))
        while (places := self._places(exponent))[1] - places[0] >= BINS:
            exponent += 1
        first, last = places
        counts = np.zeros(last - first + 1, np.int64)
        for place, count in enumerate(self._counts, self._first):
            # Python's integers: from the narrowest bins to wide ones is a long way.
            counts[(place >> exponent - self._exponent) - first] += count
        self._first, self._counts, self._exponent = first, counts, exponent

    def _places(self, exponent: int) -> tuple[int, int]:
        """The first and the last bin of that width that are needed for all numbers and for the bins there are."""
        first, last = _place(self._low, exponent), _place(self._high, exponent)
        if not len(self._counts):
            return first, last
        before = [place >> exponent - self._exponent for place in (self._first, self._first + len(self._counts) - 1)]
        return min(first, before[0]), max(last, before[1])


def _exponent(low: float, high: float) -> int:
    """Of a width so narrow that [low, high] needs more than BINS bins, though not so many more.

    Numbers that are all equal say nothing of the width that the next ones will need: theirs is as narrow as can be.
    """
    half = high / 2 - low / 2 if high > low else abs(high) * 2.0**-52  # halves: the difference may overflow
    return min(max(math.frexp(half)[1] - BINS.bit_length(), NARROWEST), WIDEST) if half else NARROWEST


def _place(number: float, exponent: int) -> int:
    """The index of the bin that a number is in."""
    return math.floor(number * 2.0**-exponent)
