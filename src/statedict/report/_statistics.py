"""The numbers of one tensor: its statistics, of pieces, since it may be larger than memory; its elements."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# Elements looked at at once: 2 MB as float64, which stays in a core's own cache on most machines.
PIECE = 1 << 18


def statistics(pieces: Iterable[np.ndarray[Any, Any]]) -> dict[str, float | int | None]:
    """min, max, mean and (population) std of the finite elements of all pieces, and how many are zero, NaN and
    infinite.

    A complex element counts by its magnitude. min, max, mean and std are None where no element is finite.
    """
    import numpy as np

    low, high, number, mean, squares = math.inf, -math.inf, 0, 0.0, 0.0
    zeros = nans = infinities = 0
    for piece in pieces:
        plain = numbers(piece)
        part = np.abs(plain).astype(np.float64) if plain.dtype.kind == "c" else plain.astype(np.float64)
        finite = part[np.isfinite(part)]
        zeros += int(np.count_nonzero(part == 0))
        nans += int(np.count_nonzero(np.isnan(part)))
        infinities += int(np.count_nonzero(np.isinf(part)))
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            # Chan's update: joining the moments of pieces loses no digits, as summing squares would.
            here, delta = float(finite.mean()), float(finite.mean()) - mean
            squares += float(((finite - here) ** 2).sum()) + delta**2 * number * finite.size / (number + finite.size)
            mean += delta * finite.size / (number + finite.size)
            number += finite.size
    moments = {"min": low, "max": high, "mean": mean, "std": math.sqrt(squares / number)} if number else NOTHING
    return {**moments, "zeros": zeros, "nan": nans, "inf": infinities}


def elements(array: np.ndarray[Any, Any]) -> Any:
    """The elements as nested lists that JSON can hold: a complex one is [real, imaginary], one that is not finite its name
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


def numbers(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same elements in a dtype that NumPy itself computes with: bfloat16 and float8 as float32, complex32 as
    complex64."""
    import numpy as np

    if array.dtype.names:
        made = np.empty(array.shape, np.complex64)
        made.real, made.imag = array["real"], array["imag"]
        return made
    return array if array.dtype.kind in "biufc" else array.astype(np.float32)


NOTHING = dict.fromkeys(("min", "max", "mean", "std"))
