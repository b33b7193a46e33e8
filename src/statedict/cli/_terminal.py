"""Print in a terminal: tables that fit its width, and colours if it supports them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

from ..errors import printable
from ._show import GAP, NUMBERS, RIGHT, WHOLE, Cells

NAME_WIDTH = 12
# The minimum width of a column with longer words.
WORD_WIDTH = 16
# The width of an output that is not a terminal.
PIPE_WIDTH = 400


def rich_console() -> Console:
    """Return a console on standard output, as wide as the terminal, or as `COLUMNS` says."""
    found = Console(highlight=False, markup=False)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(highlight=False, markup=False, width=PIPE_WIDTH)


class Terminal:
    """Output to a terminal."""

    def __init__(self) -> None:
        self._console = rich_console()

    def print(self, table: Cells | None = None) -> None:
        self._console.print(CellTable(table) if table else "")

    def say(self, value: object, style: str = "") -> None:
        whole = printable(str(value))
        lines = wrap(
            whole, self._console.width, subsequent_indent=" " * 2 * GAP, break_long_words=False, break_on_hyphens=False
        )
        self._console.print(Text("\n".join(lines), style), soft_wrap=True)


class CellTable(Table):
    """A table without lines. The first column shrinks in a narrow terminal; those in WHOLE never do. Columns of numbers are
    right-aligned, and shown with their names if the table does not fit.
    """

    def __init__(self, cells: Cells) -> None:
        super().__init__(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", show_edge=False)
        self._named = {place: name for place, name in enumerate(cells.columns) if name in NUMBERS}
        for place, column in enumerate(cells.columns):
            justify: Literal["left", "right"] = "right" if column in RIGHT else "left"
            width = NAME_WIDTH if place == 0 else None
            self.add_column(column, justify=justify, no_wrap=column in WHOLE, overflow="fold", min_width=width)
        for row in cells.rows:
            self.add_row(*(Text(cell, getattr(cell, "style", "")) for cell in row))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = max((cell_len(str(cell)) for cell in self.columns[0].cells), default=0)
        self.columns[0].no_wrap = names <= options.max_width * 2 // 3
        if sum(map(_narrowest, self.columns)) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for cells in zip(*(column.cells for column in self.columns)):
            shown = [self._labelled(place, cell) for place, cell in enumerate(cells)]
            yield from _packed([cell for cell in shown if cell.plain.strip()], console, options.max_width)

    def _labelled(self, place: int, cell: object) -> Text:
        text = cell if isinstance(cell, Text) else Text(str(cell))
        return Text(f"{self._named[place]} ") + text if place in self._named and text.plain else text


def _packed(cells: Sequence[Text], console: Console, width: int) -> Iterator[Text]:
    """Return lines of whole cells; those after the first are indented under it. A cell longer than that is folded."""
    name = cells[0].plain
    indent = " " * (len(name) - len(name.lstrip()) + 2 * GAP)
    line = Text(overflow="fold")
    for cell in cells:
        for place, part in enumerate(cell.wrap(console, width - len(indent), overflow="fold")):
            if place or (line and line.cell_len + GAP + part.cell_len > width):
                yield line
                line = Text(indent, overflow="fold")
            elif line:
                line.append(" " * GAP)
            line.append_text(part)
    yield line


def _narrowest(column: Column) -> int:
    """Return the minimum width of a column, with the gap after it."""
    texts = [str(column.header), *(str(cell) for cell in column.cells)]
    if column.no_wrap:
        return max(map(cell_len, texts)) + GAP
    longest = max((cell_len(word) for text in texts for word in text.split()), default=0)
    return max(column.min_width or 0, min(longest, WORD_WIDTH)) + GAP if longest else 0
