"""A progress bar for long saves and resumes, shown only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Bytes. Smaller saves finish too quickly for a bar.
WORTH_SHOWING = 64 << 20


class Meter:
    """Counts bytes written or read. A progress bar may be attached or detached at any time, from any thread."""

    def __init__(self, text: str, total: int = 0) -> None:
        self.text = text
        self.total = total
        self.done = 0
        self._moved: Callable[[int], object] = int

    def __call__(self, nbytes: int) -> None:
        """Add to the count."""
        self.done += nbytes
        self._moved(nbytes)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show a bar on standard error while the context lasts, if that is a terminal."""
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
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()
