"""Record the events of Python's audit hooks: imports, processes, opened files, code that is run."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Events that a reader may cause beside opening its file. All others are recorded.
HARMLESS = {
    "mmap.__new__",
    "os.scandir",
    "os.listdir",
    "sys._getframe",
    "sys._getframemodulename",  # Python 3.12
    "_thread.start_new_thread",
    "_thread.start_joinable_thread",  # Python 3.13
    "time.sleep",  # Python 3.13
    "builtins.id",
}


class Watch:
    """An audit hook: records what happens while it is on. Hooks cannot be removed, so one process needs only one.

    What other threads do that were running before is not recorded, nor what the garbage collector closes of older objects.

    Attributes:
        folder: the folder whose files may be opened; None for none.
        seen: the events, as text.
    """

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self._on = False
        self._others: set[int] = set()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on or event in HARMLESS or event.startswith(("gc.", "array.", "signal.")):
            return
        if threading.get_ident() in self._others or (event == "open" and self._may_open(args[0])):
            return
        self.seen.append(f"{event} {args[0] if args else ''}"[:200])

    @contextmanager
    def on(self, folder: str | None = None) -> Iterator[list[str]]:
        """Record in this block; return the list that receives the events."""
        self.folder, self.seen = folder, []
        self._others = {thread.ident or 0 for thread in threading.enumerate()} - {threading.get_ident()}
        gc.freeze()
        self._on = True
        try:
            yield self.seen
        finally:
            self._on = False
            gc.unfreeze()

    def _may_open(self, opened: object) -> bool:
        if not isinstance(opened, (str, bytes, os.PathLike)):
            return True
        path = os.path.abspath(os.fsdecode(opened))
        return self.folder is not None and path.startswith(os.path.join(self.folder, ""))


_WATCHES: list[Watch] = []


def the_watch() -> Watch:
    """Return the Watch of this process; its hook is added at the first call."""
    if not _WATCHES:
        _WATCHES.append(Watch())
        sys.addaudithook(_WATCHES[0])
    return _WATCHES[0]
