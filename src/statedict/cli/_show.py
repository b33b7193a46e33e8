"""Print facts: as tables in a terminal, as plain lines in a pipe.

Names and values come from untrusted files, so they are never interpreted as markup, and control characters are escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

from statedict.report import Fact, TreeEntry, count, extent, fold, noun, own_bytes, own_elements, remark, size
from statedict.state import Group
from statedict.state import fold as fold_names

from ..errors import printable

NAME_WIDTH = 12
# The minimum width of a column with longer words.
WORD_WIDTH = 16
GAP = 2


class CellTable(Table):
    """A table without lines. The first column shrinks in a narrow terminal; those in WHOLE never do. Columns of numbers are
    right-aligned, and shown with their names if the table does not fit.
    """

    def __init__(self, *columns: str) -> None:
        super().__init__(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", show_edge=False)
        self._named = {place: name for place, name in enumerate(columns) if name in NUMBERS}
        for place, column in enumerate(columns):
            justify: Literal["left", "right"] = "right" if column in RIGHT else "left"
            width = NAME_WIDTH if place == 0 else None
            self.add_column(column, justify=justify, no_wrap=column in WHOLE, overflow="fold", min_width=width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = max((cell_len(str(cell)) for cell in self.columns[0].cells), default=0)
        self.columns[0].no_wrap = names <= options.max_width * 2 // 3
        if sum(map(_narrowest, self.columns)) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for cells in zip(*(column.cells for column in self.columns)):
            shown = [self._labelled(place, cell) for place, cell in enumerate(cells)]
            yield from _packed([cell for cell in shown if cell.plain.strip()], options.max_width)

    def _labelled(self, place: int, cell: object) -> Text:
        text = cell if isinstance(cell, Text) else Text(str(cell))
        return Text(f"{self._named[place]} ") + text if place in self._named and text.plain else text


def _packed(cells: Iterable[Text], width: int) -> Iterator[Text]:
    """Return lines of whole cells; those after the first are indented under it."""
    line = Text(overflow="fold")
    for cell in cells:
        if line and line.cell_len + GAP + cell.cell_len > width:
            line.rstrip()
            yield line
            line = Text(" " * 2 * GAP, overflow="fold")
        elif line:
            line.append(" " * GAP)
        line.append_text(cell)
    line.rstrip()
    yield line


def _narrowest(column: Column) -> int:
    """Return the minimum width of a column, with the gap after it."""
    texts = [str(column.header), *(str(cell) for cell in column.cells)]
    if column.no_wrap:
        return max(map(cell_len, texts)) + GAP
    longest = max((cell_len(word) for text in texts for word in text.split()), default=0)
    return max(column.min_width or 0, min(longest, WORD_WIDTH)) + GAP if longest else 0


# A pipe does not have a width; rich would assume 80 columns and break lines, which scripts could not parse.
PIPE_WIDTH = 400
PARTS_SHOWN = 8
LABEL_WIDTH = 60


def console() -> Console:
    """Return a console on standard output, as wide as the terminal (or `COLUMNS`), with colours if it supports them."""
    found = Console(highlight=False, markup=False)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(highlight=False, markup=False, width=PIPE_WIDTH)


def text(value: object, style: str = "") -> Text:
    """Return a value as text, with control characters escaped."""
    return Text(printable(str(value)), style)


def say(out: Console, value: object, style: str = "") -> None:
    """Print one line without inserting line breaks; the terminal may wrap it."""
    out.print(text(value, style), soft_wrap=True)


def tree(facts: Iterable[Fact]) -> CellTable:
    """Return a table of the tensors, folded over repeated layers; sizes are totals of a row."""
    made = CellTable("name", "shape", "dtype", "size", "")
    by_name = {fact["name"]: fact for fact in facts}
    entries = (TreeEntry(n, (f["dtype"], *f["shape"]), own_bytes(f), remark(f)) for n, f in by_name.items())
    for row in fold(entries):
        indent = "  " * row.depth
        times = f"{row.times}× " if row.times > 1 else ""
        if not row.entries:
            made.add_row(text(indent + row.label, "bold"), "", "", size(row.nbytes), times)
        else:
            fact = by_name[row.entries[0].name]
            shown = (extent(fact), fact["dtype"], size(row.nbytes))
            made.add_row(text(indent + row.label), *shown, text(times + remark(fact), "dim"))
    return made


def flat(facts: Iterable[Fact]) -> CellTable:
    """Return a table with one row for each tensor, with its statistics if the facts have them."""
    facts = list(facts)
    numbers = [key for key in NUMBERS if facts and "stats" in facts[0]]
    made = CellTable("name", "shape", "dtype", "size", *numbers, "")
    for fact in facts:
        stats = fact.get("stats") or {}
        shown = [extent(fact), fact["dtype"], size(fact["bytes"]), *(_number(stats.get(n)) for n in numbers)]
        made.add_row(text(fact["name"]), *shown, text(remark(fact), "dim"))
    return made


def content(facts: Iterable[Fact]) -> CellTable:
    """Return a table of values that are not tensors: path, type, and value."""
    made = CellTable("other content", "type", "value")
    for fact in facts:
        value = "" if fact["value"] is None else fact["value"]
        made.add_row(text(fact["path"] or "(the file)"), text(fact["type"], "dim"), text(value))
    return made


def folded(facts: Iterable[Fact]) -> list[Fact]:
    """Return the facts, folded if they differ only in a number of their path (the steps of an optimizer)."""
    by_path = {fact["path"]: fact for fact in facts}
    groups = fold_names(by_path, lambda path: (by_path[path]["type"], str(by_path[path]["value"])))
    return [by_path[group.names[0]] | {"path": _label(group)} for group in groups]


def _label(group: Group) -> str:
    if len(group.text) <= LABEL_WIDTH or len(group.names) == 1:
        return group.text
    return f"{group.names[0]} and {len(group.names) - 1:,} more"


def summary(root: Fact) -> Iterator[str]:
    """Return the totals of a state dict: of all tensors, by dtype, and by part."""
    facts = root["tensors"]
    totals = [count(len(facts), "tensor")]
    if facts:
        nbytes = f"{size(sum(map(own_bytes, facts)))}: {_listed(root['dtypes'])}"
        totals += [count(sum(map(own_elements, facts)), noun(root["values"])), nbytes]
    yield ", ".join(totals)
    if len(root["parts"]) > 1:
        yield f"by part: {_listed(root['parts'])}"


def _listed(sums: dict[str, Fact]) -> str:
    shown = [f"{key or '(no module)'} {size(total['bytes'])} in {total['tensors']:,}" for key, total in sums.items()]
    more = [f"{len(shown) - PARTS_SHOWN:,} more"] if len(shown) > PARTS_SHOWN else []
    return ", ".join([*shown[:PARTS_SHOWN], *more])


def _number(value: float | int | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


NUMBERS = ("min", "max", "mean", "std", "zeros", "nan", "inf")
RIGHT = {"size", *NUMBERS}
WHOLE = {"dtype", *RIGHT}
