"""A table for a terminal; if it is too narrow, a line for each row, which the terminal may wrap.

In a narrow terminal, rich would shrink columns until their content is not visible.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

NAME_WIDTH = 12
# The minimum width of a column with longer words.
WORD_WIDTH = 16
GAP = 2


class CellTable(Table):
    """A table without lines. The first column shrinks in a narrow terminal; the columns in `whole` never do.

    `right`: columns of numbers, which are right-aligned, and shown with their names if the table does not fit.
    """

    def __init__(self, *columns: str, whole: Collection[str] = (), right: Collection[str] = ()) -> None:
        super().__init__(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", show_edge=False)
        self._named = {place: name for place, name in enumerate(columns) if name in right and name != "size"}
        for place, column in enumerate(columns):
            justify: Literal["left", "right"] = "right" if column in right else "left"
            width = NAME_WIDTH if place == 0 else None
            self.add_column(column, justify=justify, no_wrap=column in whole, overflow="fold", min_width=width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if sum(map(_narrowest, self.columns)) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for cells in zip(*(column.cells for column in self.columns)):
            shown = [self._labelled(place, cell) for place, cell in enumerate(cells)]
            yield Text("  ", overflow="fold").join(cell for cell in shown if cell.plain.strip())

    def _labelled(self, place: int, cell: object) -> Text:
        text = cell if isinstance(cell, Text) else Text(str(cell))
        return Text(f"{self._named[place]} ") + text if place in self._named and text.plain else text


def _narrowest(column: Column) -> int:
    """Return the minimum width of a column, with the gap after it."""
    texts = [str(column.header), *(str(cell) for cell in column.cells)]
    if column.no_wrap:
        return max(map(cell_len, texts)) + GAP
    longest = max((cell_len(word) for text in texts for word in text.split()), default=0)
    return max(column.min_width or 0, min(longest, WORD_WIDTH)) + GAP if longest else 0
