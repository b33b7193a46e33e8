"""A heat map of a matrix of any size: a grid with few cells, filled from pieces of whole rows.

If the matrix is not larger than the grid, a cell is one element. Otherwise a cell is the root mean square of a block, so
that large, dead and pruned weights stay visible; in a mean, weights of both signs would cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ._statistics import PIECE

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# A matrix with longer rows is not drawn: its pieces are whole rows, which would be too large.
LONGEST = 1 << 22
# The value of a cell with an element that is not finite.
ODD = 255


class Heat:
    """The grid of one matrix: at most `side` × `side` cells.

    >>> import numpy as np
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
