"""Statistics of one tensor, computed from pieces, since it may be larger than memory; and its elements as lists."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from statedict.plan import numbers

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

    plain = numbers(piece)
    part = np.abs(plain).astype(np.float64) if plain.dtype.kind == "c" else plain.astype(np.float64)
    fits = np.isfinite(part)
    return part, part if fits.all() else part[fits]


def elements(array: Array) -> Any:
    """Return the elements as nested lists for JSON: a complex element is [real, imaginary], one that is not finite is text
    (`"NaN"`, `"Infinity"`, `"-Infinity"`)."""
    import numpy as np

    plain = numbers(array)
    if plain.dtype.kind == "c":
        plain = np.stack([plain.real, plain.imag], axis=-1)
    if plain.dtype.kind == "f" and not np.isfinite(plain).all():
        named = plain.astype(object)
        for name, places in (("NaN", np.isnan(plain)), ("Infinity", plain == np.inf), ("-Infinity", plain == -np.inf)):
            named[places] = name
        plain = named
    return plain.tolist()
