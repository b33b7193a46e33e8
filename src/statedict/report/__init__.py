"""Describe checkpoints: facts, folded trees and statistics as plain values, and the HTML page made from them."""

from ._content import FileContent
from ._facts import (
    Fact,
    contents,
    count,
    extent,
    imports,
    own_bytes,
    own_elements,
    plain,
    remark,
    shape,
    size,
    tensors,
    totals,
    values,
    warnings,
)
from ._fold import Row, fold
from ._measures import PIECE, elements, statistics
from ._optimizers import noun
from ._page import MARK, charting, page
from ._survey import BUDGET, SurveyResult, survey

__all__ = [
    "BUDGET", "MARK", "PIECE", "Fact", "FileContent", "Row", "SurveyResult", "charting", "contents",
    "count", "elements", "extent", "fold", "imports", "noun", "own_bytes", "own_elements", "page", "plain",
    "remark", "shape", "size", "statistics", "survey", "tensors", "totals", "values", "warnings",
]  # fmt: skip
