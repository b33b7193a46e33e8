"""How far a long save or resume is: a bar on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Below this many bytes there is nothing to wait for.
WORTH_SHOWING = 64 << 20


class Meter:
    """Counts the bytes that are done, whether or not somebody looks; who looks may come and go, from another thread too."""

    def __init__(self, text: str, total: int = 0) -> None:
        self.text = text
        self.total = total
        self.done = 0
        self._moved: Callable[[int], object] = int

    def __call__(self, nbytes: int) -> None:
        """So many more bytes are done."""
        self.done += nbytes
        self._moved(nbytes)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """A bar on a terminal's standard error as long as the context lasts."""
        if self.total < WORTH_SHOWING or not watched():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(self.text, total=self.total, completed=self.done)
            self._moved = lambda nbytes: bar.advance(task, nbytes)
            try:
                yield
            finally:
                self._moved = int


def watched() -> bool:
    """Whether there is a terminal to show anything on."""
    return sys.stderr.isatty()
