"""Print facts: as tables in a terminal, as plain lines in a pipe.

Names and values come from untrusted files, so they are never interpreted as markup, and control characters are escaped.
Only output to a terminal needs rich (`_terminal`), whose import takes longer than opening most files.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import click

from statedict.report import Fact, count, extent, fold, noun, own_bytes, remark, size
from statedict.state import Group
from statedict.state import fold as fold_names

from ..errors import printable

GAP = 2
COMMAND = " " * 4


class Text(str):
    """Text without control characters, and its style in a terminal."""

    __slots__ = ("style",)
    style: str


class Cells:
    """A table: the names of its columns, and its rows. Columns of numbers are right-aligned."""

    def __init__(self, *columns: str) -> None:
        self.columns = columns
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        self.rows.append(cells)


class Printer(Protocol):
    """Where a command prints its result."""

    def print(self, table: Cells | None = None) -> None:
        """Print a table, by default an empty line."""

    def say(self, value: object, style: str = "") -> None:
        """Print a line. In a narrow terminal it is broken at spaces, never inside a path."""


class Pipe:
    """Output that a program reads: every row is one line, however long, without colours."""

    def print(self, table: Cells | None = None) -> None:
        click.echo("\n".join(_lines(table)) if table else "")

    def say(self, value: object, style: str = "") -> None:
        click.echo(printable(str(value)))


def _lines(table: Cells) -> Iterator[str]:
    columns = zip(table.columns, *table.rows)
    for cells in zip(*map(_padded, columns)):
        yield (" " * GAP).join(cells).rstrip()


def _padded(column: Sequence[str]) -> list[str]:
    """Return the texts of a column, of which the first is its name, with spaces up to the width of the longest."""
    widths = _widths(column)
    longest, right = max(widths), column[0] in RIGHT
    gaps = [" " * (longest - width) for width in widths]
    return [gap + text if right else text + gap for text, gap in zip(column, gaps)]


def _widths(texts: Sequence[str]) -> list[int]:
    """Return the number of columns that each text takes in a terminal."""
    if _NARROW.fullmatch("".join(texts)):
        return list(map(len, texts))
    from rich.cells import cell_len

    return list(map(cell_len, texts))


# Characters of one column each: printable ASCII and Latin, and the punctuation of this program.
_NARROW = re.compile("[ -~\u00a1-\u02ff…]*")
PARTS_SHOWN = 8
LABEL_WIDTH = 60


def console() -> Printer:
    """Return the printer for a terminal, or what the user's environment treats as one, or for a pipe."""
    if not sys.stdout.isatty() and TERMINAL.isdisjoint(os.environ):
        return Pipe()
    from ._terminal import Terminal

    return Terminal()


def say_lines(text: str) -> None:
    """Print a report. Its lines with a command to be copied, which are indented by four spaces, are never broken."""
    out = console()
    for line in text.split("\n"):
        (Pipe() if line.startswith(COMMAND) else out).say(line)


def text(value: object, style: str = "") -> str:
    """Return a value as text, with control characters escaped."""
    made = printable(str(value))
    if style:
        made = Text(made)
        made.style = style
    return made


def tree(facts: Sequence[Fact]) -> Cells:
    """Return a table of the tensors, folded over repeated layers; sizes are totals of a row."""
    made = Cells("name", "shape", "dtype", "size", "")
    remarks = list(map(remark, facts))
    kinds = [(fact["dtype"], *fact["shape"], said) for fact, said in zip(facts, remarks)]
    for row in fold([fact["name"] for fact in facts], kinds, list(map(own_bytes, facts))):
        name = "  " * row.depth + row.label
        times = f"{row.times}× " if row.times > 1 else ""
        if row.which:
            fact, said = facts[row.which[0]], times + remarks[row.which[0]]
            made.add_row(text(name), extent(fact), fact["dtype"], size(row.nbytes), said and text(said, "dim"))
        else:
            made.add_row(text(name, "bold"), "", "", size(row.nbytes), times)
    return made


def flat(facts: Sequence[Fact]) -> Cells:
    """Return a table with one row for each tensor, with its statistics if the facts have them."""
    numbers = [key for key in NUMBERS if facts and "stats" in facts[0]]
    made = Cells("name", "shape", "dtype", "size", *numbers, "")
    for fact in facts:
        stats = fact.get("stats") or {}
        shown = [extent(fact), fact["dtype"], size(fact["bytes"]), *(_number(stats.get(n)) for n in numbers)]
        made.add_row(text(fact["name"]), *shown, text(remark(fact), "dim"))
    return made


def content(facts: Iterable[Fact]) -> Cells:
    """Return a table of values that are not tensors: path, type, and value."""
    made = Cells("other content", "type", "value")
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
        elements, nbytes = (sum(total[key] for total in root["dtypes"].values()) for key in ("elements", "bytes"))
        totals += [count(elements, noun(facts, root["values"])), f"{size(nbytes)}: {_listed(root['dtypes'])}"]
    yield ", ".join(totals)
    if len(root["parts"]) > 1:
        yield f"by part: {_listed(root['parts'])}"


def _listed(sums: dict[str, Fact]) -> str:
    first = islice(sums.items(), PARTS_SHOWN)
    shown = [f"{key or '(no module)'} {size(total['bytes'])} in {total['tensors']:,}" for key, total in first]
    more = [f"{len(sums) - PARTS_SHOWN:,} more"] if len(sums) > PARTS_SHOWN else []
    return ", ".join([*shown, *more])


def _number(value: float | int | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


NUMBERS = ("min", "max", "mean", "std", "zeros", "nan", "inf")
RIGHT = {"size", *NUMBERS}
WHOLE = {"dtype", *RIGHT}
# Environment variables that ask for the layout or the colours of a terminal.
TERMINAL = {"COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"}
