"""The central data types: StateDict, Leaf, Spec, the dtype table, names, ties, metadata. Uses neither files nor torch."""

from typing import Any

from . import _arguments as arguments
from ._absent import Absent
from ._boxes import Box, box_shown, narrowed, run_of, tiling_problem, whole_box
from ._cast import Casts, cast_array, cast_leaf
from ._cast_kind import Cast, CastKind, ValueRange, cast_kind, joined
from ._computed import COMPUTED, computed
from ._copy import independent
from ._dtype import DTYPES, DType, dtype
from ._excerpt import EXCERPTS, Excerpt, excerpt, runs_within
from ._expansion import require_in_proportion
from ._fold import Group, fold, spans
from ._leaf import (
    PLAIN,
    Bulk,
    Leaf,
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
from ._library import ArrayLibrary, leaf_of, library, library_of, maker
from ._materialize import materialize
from ._memory import copies_of, copy_rows, memory_at, view_of
from ._metadata import renamed as renamed_metadata
from ._names import Patterns, matcher, nearest, parents
from ._origins import Derived, Origin, origins
from ._parts import IN_PIECES, Parts, Piece, Pieces, is_plain, join_pieces, part_of, read_pieces
from ._pieces import pieces
from ._placement import LocalBox, MeshPlacement, boxes_of, placement_text
from ._process import collector_paused, have_room, not_put_back, without_collector
from ._region import Regional, arranged, region
from ._revive import CLASSES, MAKERS, OF_TORCH, Maker, maker_of
from ._sections import LINE, Section, as_html, as_text, folded, listed
from ._short import Short
from ._statedict import StateDict, raw_values
from ._statedict_html import state_shown
from ._table import Blocks, RowKind, Table, arena, by_source, leaves_of, memory_of, rows_of, single_rows, table_of
from ._tree import every, holds, map_tree, tensors_of
from ._values import Compound, Opaque

__all__ = [
    "COMPUTED",
    "Box",
    "box_shown",
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
    "join_pieces",
    "part_of",
    "read_pieces",
    "Regional",
    "arranged",
    "region",
    "arguments",
    "PLAIN",
    "Absent",
    "DTYPES",
    "LINE",
    "DType",
    "dtype",
    "Bulk",
    "Leaf",
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
    "holds",
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
    "rows_of",
    "single_rows",
    "table_of",
    "copies_of",
    "copy_rows",
    "memory_at",
    "view_of",
    "without_collector",
]


def read_array(leaf: Leaf, *, verify: bool = True):  # type: ignore[no-untyped-def]  # numpy is imported by the first call
    """Return the elements of a leaf as a NumPy array: a view if possible, else read into new memory."""
    from ._numpy import read_array as read

    return read(leaf, verify=verify)


def value_range(array: Any, dtype: DType) -> ValueRange:
    """Return the range of the elements of a NumPy array that carries elements of `dtype`."""
    from ._value_range import value_range as of

    return of(array, dtype)
