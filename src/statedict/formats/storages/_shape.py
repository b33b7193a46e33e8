"""Shapes that cannot be: that files claim for no array that there is, or tensors have without the memory for them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from statedict.state import Leaf

from ...errors import FormatError, SaveError

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


def require_memory(leaf: Leaf) -> None:
    """Raise SaveError for a tensor that reaches beyond its storage: a file of it would be damaged."""
    spec, storage = leaf.spec, leaf.storage
    if spec.nbytes != storage.nbytes and spec.reach * spec.dtype.itemsize > storage.nbytes:
        raise SaveError(
            f"a tensor of shape {list(spec.shape)} has {storage.nbytes:,} bytes of memory: its storage was freed, as FSDP "
            "does between steps; gather or allocate it first"
        )
