"""A line on a terminal while a long save or resume runs; nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Below this many bytes there is nothing to wait for.
WORTH_SHOWING = 64 << 20


@contextmanager
def showing(text: str, nbytes: int = WORTH_SHOWING, *, quiet: bool = False) -> Iterator[None]:
    """Show `text` with a spinner on a terminal's standard error, as long as the context lasts."""
    if quiet or nbytes < WORTH_SHOWING or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{text} …"):
        yield
