"""The middle: plain values. StateDict, leaf, spec, the dtype table, names, ties, metadata. No files, no torch."""

from . import _arguments as arguments
from ._cast import cast_leaf
from ._collector import collector_paused, without_collector
from ._computed import computed
from ._copy import independent
from ._dtype import DTYPES, DType, dtype
from ._fold import Group, fold, spans
from ._leaf import (
    PLAIN,
    Leaf,
    Read,
    Source,
    Storage,
    Streaming,
    Traits,
)
from ._library import ArrayLibrary, leaf_of, library, library_of
from ._materialize import arena, blocks, by_source, materialize
from ._metadata import renamed as renamed_metadata
from ._names import Patterns, matcher, nearest, parents
from ._pieces import pieces
from ._rows import Many, RowKind, Rows, leaves_of, many
from ._sections import LINE, Section, as_html, as_text, folded, listed
from ._spec import Spec, contiguous, contiguous_strides
from ._statedict import StateDict, raw_values
from ._statedict_html import state_shown
from ._tree import holds, map_tree, tensors_of
from ._values import Compound, Opaque
from ._wholes import Wholes, copy_rows, memory_at

__all__ = [
    "arguments",
    "PLAIN",
    "DTYPES",
    "LINE",
    "DType",
    "dtype",
    "Leaf",
    "Read",
    "Source",
    "Storage",
    "Streaming",
    "Traits",
    "ArrayLibrary",
    "leaf_of",
    "library",
    "library_of",
    "cast_leaf",
    "collector_paused",
    "blocks",
    "by_source",
    "computed",
    "independent",
    "arena",
    "materialize",
    "holds",
    "map_tree",
    "tensors_of",
    "read_array",
    "pieces",
    "Group",
    "fold",
    "spans",
    "Section",
    "as_html",
    "as_text",
    "folded",
    "listed",
    "state_shown",
    "renamed_metadata",
    "Patterns",
    "matcher",
    "nearest",
    "parents",
    "Spec",
    "contiguous",
    "contiguous_strides",
    "StateDict",
    "raw_values",
    "Compound",
    "Opaque",
    "Many",
    "RowKind",
    "Rows",
    "leaves_of",
    "many",
    "Wholes",
    "copy_rows",
    "memory_at",
    "without_collector",
]


def read_array(leaf: Leaf):  # type: ignore[no-untyped-def]  # numpy is imported by the first call, not with this room
    """The elements of a leaf as a NumPy array: a view where that can be had, else read into fresh memory."""
    from ._numpy import read_array as read

    return read(leaf)
