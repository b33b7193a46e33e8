"""The central data types: StateDict, Leaf, Spec, the dtype table, names, ties, metadata. Uses neither files nor torch."""

from typing import Any

from . import _arguments as arguments
from ._process import collector_paused, have_room, not_put_back, without_collector
from .casts._cast import Casts, cast_array, cast_leaf
from .casts._cast_kind import Cast, CastKind, ValueRange, cast_kind, joined
from .casts._computed import COMPUTED, computed, elementwise
from .mapping._copy import independent
from .mapping._fold import Group, fold, spans
from .mapping._metadata import renamed as renamed_metadata
from .mapping._names import Patterns, check_names, matcher, nearest, parents
from .mapping._revive import CLASSES, MAKERS, OF_TORCH, Maker, maker_of
from .mapping._sections import LINE, Section, as_html, as_text, folded, listed
from .mapping._short import Short, few
from .mapping._statedict import StateDict, raw_values
from .mapping._statedict_html import state_shown
from .mapping._tree import every, map_tree, one_of_each_type, tensors_of
from .regions._boxes import Box, box_shown, boxes_of_run, narrowed, run_of, tiling_problem, whole_box
from .regions._excerpt import EXCERPTS, Excerpt, excerpt, runs_within
from .regions._origins import Derived, Origin, origins
from .regions._parts import (
    IN_PIECES,
    Parts,
    Pieces,
    join_later,
    join_pieces,
    part_at,
    part_of,
)
from .regions._placement import LocalBox, MeshPlacement, boxes_of, placement_text
from .regions._read_pieces import Piece, is_plain, read_pieces, stream_pieces
from .regions._region import Regional, arranged, region
from .tensors._absent import Absent
from .tensors._dtype import DTYPES, DType, dtype
from .tensors._expansion import require_in_proportion
from .tensors._leaf import (
    PLAIN,
    Bulk,
    Leaf,
    Leasable,
    Read,
    Shareable,
    Source,
    Spec,
    Storage,
    Streaming,
    Traits,
    check_bounds,
    check_reach,
    contiguous,
    contiguous_strides,
)
from .tensors._library import ArrayLibrary, leaf_of, library, library_of, maker
from .tensors._materialize import materialize
from .tensors._memory import copies_of, memory_at, row_copies, view_of
from .tensors._pieces import pieces, row_major
from .tensors._table import (
    Blocks,
    RowKind,
    Table,
    arena,
    by_source,
    leaves_of,
    memory_of,
    rows_of,
    single_rows,
    table_of,
)
from .tensors._values import Compound, Opaque

__all__ = [
    "Absent", "ArrayLibrary", "Blocks", "Box", "Bulk", "CLASSES", "COMPUTED", "Cast", "CastKind", "Casts", "Compound",
    "DTYPES", "DType", "Derived", "EXCERPTS", "Excerpt", "Group", "IN_PIECES", "LINE", "Leaf", "Leasable", "LocalBox",
    "MAKERS", "Maker", "MeshPlacement", "OF_TORCH", "Opaque", "Origin", "PLAIN", "Parts", "Patterns", "Piece",
    "Pieces", "Read", "Regional", "RowKind", "Section", "Shareable", "Short", "Source", "Spec", "StateDict",
    "Storage", "Streaming", "Table", "Traits", "ValueRange", "arena", "arguments", "arranged", "as_html", "as_text",
    "box_shown", "boxes_of", "boxes_of_run", "by_source", "cast_array", "cast_kind", "cast_leaf", "check_bounds",
    "check_names", "check_reach", "collector_paused", "computed", "contiguous", "contiguous_strides", "copies_of", "dtype",
    "elementwise", "every", "excerpt", "few", "fold", "folded", "have_room", "independent", "is_plain", "join_later",
    "join_pieces", "joined", "leaf_of", "leaves_of", "library", "library_of", "listed", "maker", "maker_of",
    "map_tree", "matcher", "materialize", "memory_at", "memory_of", "narrowed", "nearest", "not_put_back",
    "one_of_each_type", "origins", "parents", "part_at", "part_of", "pieces", "placement_text", "raw_values",
    "read_array", "read_pieces", "region", "renamed_metadata", "require_in_proportion", "row_copies", "row_major",
    "rows_of", "run_of", "runs_within", "single_rows", "spans", "state_shown", "stream_pieces", "table_of",
    "tensors_of", "tiling_problem", "value_range", "view_of", "whole_box", "without_collector",
]  # fmt: skip


def read_array(leaf: Leaf, *, verify: bool = True):  # type: ignore[no-untyped-def]  # numpy is imported by the first call
    """Return the elements of a leaf as a NumPy array: a view if possible, else read into new memory."""
    from .tensors._numpy import read_array as read

    return read(leaf, verify=verify)


def value_range(array: Any, dtype: DType) -> ValueRange:
    """Return the range of the elements of a NumPy array that carries elements of `dtype`."""
    from .casts._value_range import value_range as of

    return of(array, dtype)
