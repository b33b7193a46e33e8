"""The results, as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

from rich.table import Table

from ._measure import Figure


class Row(NamedTuple):
    """One way to do one operation in one case.

    `ratio` is its time divided by this library's, so more than 1 is slower; `cpu_ratio` is the same for processor time.
    """

    case: str
    operation: str
    way: str
    figure: Figure
    ratio: float
    cpu_ratio: float


def rows(case: str, operation: str, figures: dict[str, Figure]) -> Iterator[Row]:
    """Return the rows of one operation; the first figure is this library's."""
    ours = next(iter(figures.values()))
    for way, figure in figures.items():
        yield Row(case, operation, way, figure, figure.seconds / ours.seconds, figure.cpu / max(ours.cpu, 1e-9))


def table(found: Iterable[Row]) -> Table:
    made = Table("case", "operation", "way", title=machine()["machine"])
    for heading in ("ms", "× ours", "cpu, × ours", "extra MB"):
        made.add_column(heading, justify="right")
    last = ("", "")
    for row in found:
        here = (row.case, row.operation)
        if here != last:
            made.add_section()
        labels = here if here != last else ("", "")
        last = here
        figure = row.figure
        numbers = (
            f"{figure.seconds * 1e3:,.1f}",
            f"{row.ratio:.2f}",
            f"{row.cpu_ratio:.2f}",
            f"{figure.extra / 1e6:,.0f}",
        )
        made.add_row(*labels, row.way, *numbers)
    return made


def as_json(found: Iterable[Row]) -> dict[str, Any]:
    """Return everything that the table shows, and the environment."""
    facts = [{**row._asdict(), **row.figure._asdict()} for row in found]
    return {**machine(), "rows": [{key: value for key, value in fact.items() if key != "figure"} for fact in facts]}


def machine() -> dict[str, str]:
    """Return the facts that the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: version(name) for name in ("statedict", "torch", "safetensors", "numpy")}
    versions["python"] = platform.python_version()
    return {
        "machine": f"{platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
