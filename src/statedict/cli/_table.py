"""Rows of cells for a terminal: a table where it fits, else a line for each row, which the terminal may wrap.

rich would squeeze columns to nothing in a narrow terminal, and with them what they say.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

NAME_WIDTH = 12
# Text of this width may be folded to no less, where its words are longer.
WORD_WIDTH = 16
GAP = 2


class Rows(Table):
    """A table without lines. The first column gives way in a narrow terminal, those named in `whole` never do.

    `right`: columns of numbers, aligned to the right, and told with their name where there is no table.
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
            shown = [self._told(place, cell) for place, cell in enumerate(cells)]
            yield Text("  ", overflow="fold").join(cell for cell in shown if cell.plain.strip())

    def _told(self, place: int, cell: object) -> Text:
        told = cell if isinstance(cell, Text) else Text(str(cell))
        return Text(f"{self._named[place]} ") + told if place in self._named and told.plain else told


def _narrowest(column: Column) -> int:
    """The columns of the terminal that this one needs, with the gap behind it."""
    texts = [str(column.header), *(str(cell) for cell in column.cells)]
    if column.no_wrap:
        return max(map(cell_len, texts)) + GAP
    longest = max((cell_len(word) for text in texts for word in text.split()), default=0)
    return max(column.min_width or 0, min(longest, WORD_WIDTH)) + GAP if longest else 0
