"""Shapes that files claim, before anybody makes an array of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..errors import FormatError

# NumPy and PyTorch count bytes in signed 64-bit numbers, of a tensor without elements too.
LARGEST = 2**63 - 1


def check_addressable(
    shape: Sequence[int], itemsize: int, *, file: str | None = None, member: str | None = None
) -> None:
    """Raise FormatError where no array can have this shape, whatever it holds: `(0, 2**40, 2**40)` is one.

    A shape without a 0 has the bytes that it claims, which readers compare with those that are there.
    """
    if 0 in shape and prod(size or 1 for size in shape) * itemsize > LARGEST:
        raise FormatError(f"no array can have the shape {list(shape)}", file=file, member=member)
