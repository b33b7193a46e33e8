"""Describe checkpoints: facts, folded trees and statistics as plain values, and the HTML page made from them."""

from ._content import FileContent as FileContent
from ._facts import Fact as Fact
from ._facts import contents as contents
from ._facts import extent as extent
from ._facts import imports as imports
from ._facts import own_bytes as own_bytes
from ._facts import plain as plain
from ._facts import remark as remark
from ._facts import shape as shape
from ._facts import tensors as tensors
from ._facts import totals as totals
from ._facts import values as values
from ._facts import warnings as warnings
from ._fold import Row as Row
from ._fold import TreeEntry as TreeEntry
from ._fold import fold as fold
from ._page import MARK as MARK
from ._page import charting as charting
from ._page import page as page
from ._size import count as count
from ._size import size as size
from ._statistics import PIECE as PIECE
from ._statistics import elements as elements
from ._statistics import statistics as statistics
from ._survey import BUDGET as BUDGET
from ._survey import SurveyResult as SurveyResult
from ._survey import survey as survey

__all__ = [
    "BUDGET",
    "MARK",
    "PIECE",
    "TreeEntry",
    "Fact",
    "FileContent",
    "Row",
    "SurveyResult",
    "charting",
    "contents",
    "count",
    "elements",
    "fold",
    "imports",
    "extent",
    "own_bytes",
    "page",
    "plain",
    "remark",
    "shape",
    "size",
    "statistics",
    "survey",
    "tensors",
    "totals",
    "values",
    "warnings",
]
