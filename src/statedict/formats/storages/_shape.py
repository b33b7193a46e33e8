"""Impossible shapes: those no array can have, and those that need more memory than the storage has."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from statedict.state import Leaf

from ...errors import FormatError, SaveError

# NumPy and PyTorch count bytes in signed 64-bit numbers, for a tensor without elements too.
LARGEST = 2**63 - 1


def check_addressable(
    shape: Sequence[int], itemsize: int, *, file: str | None = None, member: str | None = None
) -> None:
    """Raise FormatError for a shape that no array can have, whatever its content, such as `(0, 2**40, 2**40)`.

    A shape without a 0 needs the bytes that it implies; readers compare those with the bytes that exist.
    """
    if 0 in shape and prod(size or 1 for size in shape) * itemsize > LARGEST:
        raise FormatError(f"impossible shape for an array: {list(shape)}", file=file, member=member)


def require_memory(leaf: Leaf) -> None:
    """Raise SaveError for a tensor that exceeds its storage: writing it would produce a damaged file."""
    spec, storage = leaf.spec, leaf.storage
    if spec.nbytes != storage.nbytes and spec.reach * spec.dtype.itemsize > storage.nbytes:
        raise SaveError(
            f"a tensor of shape {list(spec.shape)} has {storage.nbytes:,} bytes of memory: its storage was freed, as FSDP "
            "does between steps; gather or allocate the tensor first"
        )
