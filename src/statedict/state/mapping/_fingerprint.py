"""A digest of the content of a state: names, dtypes, shapes and elements, in name order, independent of the storage."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ..tensors._expansion import require_in_proportion
from ..tensors._leaf import Leaf
from ..tensors._values import Compound

if TYPE_CHECKING:
    from ._statedict import StateDict


def fingerprint(state: StateDict) -> str:
    """Return the SHA-256 of each tensor's name, spec and elements, sorted by name; other values are ignored."""
    import numpy as np

    from ..tensors._numpy import bytes_of, read_array

    leaves = sorted(state.leaves(), key=lambda item: item[0])
    require_in_proportion(leaf for _, leaf in leaves)
    digest = hashlib.sha256()
    for name, value in leaves:
        digest.update(f"{(name, *_what(value))!r}\n".encode())
        for role, part in {"": value}.items() if isinstance(value, Leaf) else sorted(value.parts.items()):
            digest.update(f"{(role, part.spec.dtype.name, part.spec.shape)!r}\n".encode())
            digest.update(bytes_of(np.ascontiguousarray(read_array(part))))
    return digest.hexdigest()


def _what(value: Leaf | Compound) -> tuple[object, ...]:
    """Return what distinguishes tensors besides the elements of their parts."""
    if isinstance(value, Leaf):
        return ("strided",)
    return value.layout, value.dtype.name, value.shape, sorted(value.facts.items())
