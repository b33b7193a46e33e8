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
from .mapping._names import Patterns, matcher, nearest, parents
from .mapping._revive import CLASSES, MAKERS, OF_TORCH, Maker, maker_of
from .mapping._sections import LINE, Section, as_html, as_text, folded, listed
from .mapping._short import Short
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
    "COMPUTED",
    "elementwise",
    "Box",
    "box_shown",
    "boxes_of_run",
    "narrowed",
    "run_of",
    "tiling_problem",
    "whole_box",
    "EXCERPTS",
    "Excerpt",
    "excerpt",
    "Derived",
    "Origin",
    "origins",
    "runs_within",
    "IN_PIECES",
    "Parts",
    "Piece",
    "LocalBox",
    "Pieces",
    "MeshPlacement",
    "placement_text",
    "is_plain",
    "boxes_of",
    "join_later",
    "join_pieces",
    "part_at",
    "part_of",
    "read_pieces",
    "stream_pieces",
    "Regional",
    "arranged",
    "region",
    "row_major",
    "arguments",
    "PLAIN",
    "Absent",
    "DTYPES",
    "LINE",
    "DType",
    "dtype",
    "Bulk",
    "Leaf",
    "Leasable",
    "Read",
    "Shareable",
    "Source",
    "Storage",
    "Streaming",
    "Traits",
    "check_bounds",
    "check_reach",
    "ArrayLibrary",
    "leaf_of",
    "library",
    "library_of",
    "cast_array",
    "cast_kind",
    "cast_leaf",
    "Cast",
    "CastKind",
    "Casts",
    "ValueRange",
    "value_range",
    "joined",
    "collector_paused",
    "by_source",
    "computed",
    "independent",
    "arena",
    "have_room",
    "not_put_back",
    "materialize",
    "memory_of",
    "every",
    "one_of_each_type",
    "map_tree",
    "tensors_of",
    "read_array",
    "require_in_proportion",
    "pieces",
    "Group",
    "fold",
    "spans",
    "Section",
    "Short",
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
    "CLASSES",
    "MAKERS",
    "OF_TORCH",
    "Maker",
    "maker",
    "maker_of",
    "Blocks",
    "RowKind",
    "Table",
    "leaves_of",
    "row_copies",
    "rows_of",
    "single_rows",
    "table_of",
    "copies_of",
    "memory_at",
    "view_of",
    "without_collector",
]


def read_array(leaf: Leaf, *, verify: bool = True):  # type: ignore[no-untyped-def]  # numpy is imported by the first call
    """Return the elements of a leaf as a NumPy array: a view if possible, else read into new memory."""
    from .tensors._numpy import read_array as read

    return read(leaf, verify=verify)


def value_range(array: Any, dtype: DType) -> ValueRange:
    """Return the range of the elements of a NumPy array that carries elements of `dtype`."""
    from .casts._value_range import value_range as of

    return of(array, dtype)
