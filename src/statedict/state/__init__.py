"""The middle: plain values. StateDict, leaf, spec, the dtype table, names, ties, metadata. No files, no torch."""

from ._cast import cast_leaf as cast_leaf
from ._computed import computed as computed
from ._dtype import DTYPES as DTYPES
from ._dtype import DType as DType
from ._dtype import dtype as dtype
from ._leaf import (
    PLAIN as PLAIN,
)
from ._leaf import (
    Leaf as Leaf,
)
from ._leaf import (
    Read as Read,
)
from ._leaf import (
    Source as Source,
)
from ._leaf import (
    Storage as Storage,
)
from ._leaf import (
    Traits as Traits,
)
from ._library import ArrayLibrary as ArrayLibrary
from ._library import leaf_of as leaf_of
from ._library import library as library
from ._library import library_of as library_of
from ._materialize import arena as arena
from ._materialize import materialize as materialize
from ._names import Patterns as Patterns
from ._names import matcher as matcher
from ._names import nearest as nearest
from ._names import parents as parents
from ._spec import Spec as Spec
from ._spec import contiguous as contiguous
from ._spec import contiguous_strides as contiguous_strides
from ._statedict import StateDict as StateDict
from ._statedict import raw_values as raw_values
from ._values import Compound as Compound
from ._values import Opaque as Opaque


def read_array(leaf: Leaf):  # type: ignore[no-untyped-def]  # numpy is imported by the first call, not with this room
    """The elements of a leaf as a NumPy array: a view where that can be had, else read into fresh memory."""
    from ._numpy import read_array as read

    return read(leaf)
