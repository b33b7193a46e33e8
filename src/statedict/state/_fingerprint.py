"""A digest of what a state says, not of how it is stored: names, dtypes, shapes and elements, in name order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ._expansion import require_in_proportion
from ._leaf import Leaf

if TYPE_CHECKING:
    from ._statedict import StateDict


def fingerprint(state: StateDict) -> str:
    """SHA-256 over each tensor's name, dtype, shape and elements, sorted by name; other values do not count."""
    import numpy as np

    from ._numpy import bytes_of, read_array

    leaves = sorted(state.leaves(), key=lambda item: item[0])
    require_in_proportion(leaf for _, leaf in leaves)
    digest = hashlib.sha256()
    for name, leaf in leaves:
        parts = {"": leaf} if isinstance(leaf, Leaf) else leaf.parts
        digest.update(f"{name}\0{leaf.spec.dtype if isinstance(leaf, Leaf) else leaf.layout}\0".encode())
        for role, part in parts.items():
            digest.update(f"{role}\0{part.spec.dtype}\0{part.spec.shape}\0".encode())
            digest.update(bytes_of(np.ascontiguousarray(read_array(part))))
    return digest.hexdigest()
