"""Facts as people read them: tables in a terminal, plain lines in a pipe.

Names and values come out of files that somebody else made, so they are never taken for markup, and what cannot be printed
is escaped: a name cannot move the cursor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from statedict.report import Entry, Fact, count, fold, own_bytes, printable, remark, shape, size, totals

# A pipe has no width; rich would assume 80 columns and break the lines that a script wants to read.
PIPE_WIDTH = 400
PARTS_SHOWN = 8


def console() -> Console:
    """Standard output: as wide as the terminal (or `COLUMNS`), in colours where it has some and `NO_COLOR` is not set."""
    found = Console(highlight=False, markup=False)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(highlight=False, markup=False, width=PIPE_WIDTH)


def text(value: object, style: str = "") -> Text:
    """A value for printing: unprintable characters are escaped."""
    return Text(printable(str(value)), style)


def say(out: Console, value: object, style: str = "") -> None:
    """Print one line, which the terminal may wrap: what is copied from it has no line breaks of ours."""
    out.print(text(value, style), soft_wrap=True)


def table(*columns: str, name: str = "name") -> Table:
    """An empty table without lines: the first column gives way in a narrow terminal, the others keep their words."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    made.add_column(name, overflow="fold", min_width=12)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in RIGHT else "left"
        made.add_column(column, justify=justify, no_wrap=column in WHOLE, overflow="fold")
    return made


def tree(facts: Iterable[Fact]) -> Table:
    """The tensors folded over repeated layers; sizes are totals of what a row stands for."""
    made = table("shape", "dtype", "size", "")
    by_name = {fact["name"]: fact for fact in facts}
    entries = (Entry(n, (f["dtype"], *f["shape"]), own_bytes(f), remark(f)) for n, f in by_name.items())
    for row in fold(entries):
        indent = "  " * row.depth
        times = f"{row.times}× " if row.times > 1 else ""
        if not row.entries:
            made.add_row(text(indent + row.label, "bold"), "", "", size(row.nbytes), times)
        else:
            fact = by_name[row.entries[0].name]
            shown = (shape(fact["shape"]), fact["dtype"], size(row.nbytes))
            made.add_row(text(indent + row.label), *shown, text(times + remark(fact), "dim"))
    return made


def flat(facts: Iterable[Fact]) -> Table:
    """One row for each tensor, with its statistics where the facts have them."""
    facts = list(facts)
    numbers = [key for key in NUMBERS if facts and "stats" in facts[0]]
    made = table("shape", "dtype", "size", *numbers, "")
    for fact in facts:
        stats = fact.get("stats") or {}
        shown = [shape(fact["shape"]), fact["dtype"], size(fact["bytes"]), *(_number(stats.get(n)) for n in numbers)]
        made.add_row(text(fact["name"]), *shown, text(remark(fact), "dim"))
    return made


def content(facts: Iterable[Fact]) -> Table:
    """Values that are no tensors of a state: where, what, and the value."""
    made = table("type", "value", name="other content")
    for fact in facts:
        value = "" if fact["value"] is None else fact["value"]
        made.add_row(text(fact["path"] or "(the file)"), text(fact["type"], "dim"), text(value))
    return made


def summary(facts: Collection[Fact]) -> Iterator[str]:
    """The totals: of all, by dtype, and by the module that a tensor belongs to."""
    by_dtype = totals(facts, lambda fact: fact["dtype"])
    nbytes = sum(own_bytes(fact) for fact in facts)
    yield f"{count(len(facts), 'tensor')}, {size(nbytes)}: {_listed(by_dtype)}"
    by_part = totals(facts, part_of(fact["name"] for fact in facts))
    if len(by_part) > 1:
        yield f"by part: {_listed(by_part)}"


def part_of(names: Iterable[str]) -> Callable[[Fact], str]:
    """A function that gives the part of the model that a tensor belongs to: the first label in which the names differ."""
    modules = [name.split(".")[:-1] for name in names]
    shared = 0
    for labels in zip(*modules):
        if len(set(labels)) > 1:
            break
        shared += 1
    return lambda fact: ".".join(fact["name"].split(".")[:-1][: shared + 1])


def _listed(sums: dict[str, Fact]) -> str:
    shown = [f"{key or '(no module)'} {size(total['bytes'])} in {total['tensors']:,}" for key, total in sums.items()]
    more = [f"{len(shown) - PARTS_SHOWN:,} more"] if len(shown) > PARTS_SHOWN else []
    return ", ".join([*shown[:PARTS_SHOWN], *more])


def _number(value: float | int | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


NUMBERS = ("min", "max", "mean", "std", "zeros", "nan", "inf")
RIGHT = {"size", *NUMBERS}
WHOLE = {"dtype", *RIGHT}
WHOLE = {"dtype", *RIGHT}
