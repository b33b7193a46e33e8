"""Rows of a column by their value: what is done to many things of one size is done to all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]


def grouped(values: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Each distinct value, and where it is, in order.

    >>> import numpy as np
    >>> [(value, where.tolist()) for value, where in grouped(np.array([4, 1, 4]))]
    [(1, [1]), (4, [0, 2])]
    """
    import numpy as np

    order = np.argsort(values, kind="stable")
    ordered = values[order]
    borders = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(values)]
    for start, stop in pairwise(borders if len(values) else ()):
        yield int(ordered[start]), order[start:stop]
