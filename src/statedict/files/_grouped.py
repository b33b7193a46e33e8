"""Group the rows of a column by value, so that equal ones can be processed together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]


def grouped(values: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Yield each distinct value with its positions, in order of value.

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
