"""Show a StateDict in a notebook: totals, and the names folded over repeated layers. Reads no tensor.

The output is limited to one or two screens for any number and length of names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from math import prod
from typing import TYPE_CHECKING

from ..tensors._absent import Absent
from ..tensors._dtype import DType
from ..tensors._leaf import Leaf
from ..tensors._values import Compound
from ._sections import Section, as_html, folded, listed

if TYPE_CHECKING:
    from ._statedict import StateDict

LINES = 40
FEW = 8


def state_html(state: StateDict) -> str:
    """Return the state as an HTML fragment."""
    first, sections = state_shown(state, "tensors", LINES)
    return as_html(f"StateDict: {first}", sections)


def state_counts(state: StateDict) -> str:
    """Return how many tensors, elements and bytes there are, and the dtypes. Reads no tensor."""
    return _counts([leaf for _, leaf in state.leaves() if not isinstance(leaf, Absent)])


def state_shown(state: StateDict, title: str, limit: int) -> tuple[str, list[Section]]:
    """Return one line (tensors, elements, bytes, dtypes), and sections: the tensors, the ties, the other entries' names."""
    leaves = {name: leaf for name, leaf in state.leaves() if not isinstance(leaf, Absent)}
    known = {name: _described(leaf) for name, leaf in leaves.items()}
    ties = (" = ".join(names[:FEW]) for names in state.tied)
    others = (name for name in state if name not in known)
    sections = [
        folded(title, known, lambda names: known[names[0]], known.get, limit),
        listed("tied", ties, FEW),
        listed("other entries", others, FEW),
    ]
    return _counts(leaves.values()), sections


def _counts(leaves: Collection[Leaf | Compound]) -> str:
    dtypes = Counter(_dtype(leaf).name for leaf in leaves)
    nbytes = sum(leaf.nbytes for leaf in leaves)
    listed = ", ".join(f"{count:,} {name}" for name, count in dtypes.most_common(FEW))
    elements = sum(prod(leaf.spec.shape if isinstance(leaf, Leaf) else leaf.shape) for leaf in leaves)
    tensors = f"{len(leaves):,} tensor{'' if len(leaves) == 1 else 's'}"
    return f"{tensors}, {elements:,} elements, {nbytes:,} bytes" + (f" ({listed})" if listed else "")


def _dtype(leaf: Leaf | Compound) -> DType:
    return leaf.spec.dtype if isinstance(leaf, Leaf) else leaf.dtype


def _described(leaf: Leaf | Compound) -> str:
    """Return a tensor's dtype and shape, and its layout if it is not strided."""
    if isinstance(leaf, Leaf):
        return f"{leaf.spec.dtype} {list(leaf.spec.shape)}"
    return f"{leaf.dtype} {list(leaf.shape)} {leaf.layout}"
