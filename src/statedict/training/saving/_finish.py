"""Finish the saves of a manager that was not closed, when it is garbage-collected or the interpreter exits.

No code can catch the error of a save that fails then. It is printed, and the process ends with status 120, Python's status
for errors in the cleanup. An error in an `atexit` function does not change the status, but one in the last flush of
`sys.stdout` does.
"""

from __future__ import annotations

import atexit
import io
import sys
import threading
from typing import Any

from ._background import Background
from ._ownership import Ownership


def finish(background: Background, ownership: Ownership) -> None:
    """Wait for the saves and unlock the run. If one has failed, raise its error and let the process end with status 120."""
    with ownership.mutex:
        try:
            background.wait()
        except BaseException:
            _fail_at_exit()
            raise
        finally:
            ownership.release()


class FailingOutput:
    """A stream like the given one, except that its flush fails once the interpreter has run all `atexit` functions."""

    # Otherwise Python does not flush it.
    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def flush(self) -> None:
        try:
            self._stream.flush()
        finally:
            if sys.is_finalizing():
                raise OSError("a checkpoint was not saved (see the error above), so the exit status is 120")


def _fail_at_exit() -> None:
    # The main thread counts as ended while `atexit` functions run; another one that is registered then is not called.
    if threading.main_thread().is_alive():
        atexit.register(_replace_output)
    else:
        _replace_output()


def _replace_output() -> None:
    if not isinstance(sys.stdout, FailingOutput):
        sys.stdout = FailingOutput(io.StringIO() if sys.stdout is None else sys.stdout)
