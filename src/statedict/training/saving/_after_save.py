"""`after_save=`: the caller's function that is called with each checkpoint that is durable."""

from __future__ import annotations

import threading
from collections.abc import Callable

from statedict.errors import AfterSaveError
from statedict.state import arguments

from .._keep import Saved


class AfterSave:
    """The function, if there is one, and which thread is inside it. It is never called in two threads at once."""

    def __init__(self, function: Callable[[Saved], object] | None) -> None:
        if function is not None and not callable(function):
            given = arguments.described(function)
            raise TypeError(f"after_save= must be a function that takes the checkpoint, not {given}")
        self._function = function
        self._thread: int | None = None

    @property
    def is_running_here(self) -> bool:
        """Whether this thread is inside the function: other threads may be waiting for the save that called it."""
        return self._thread == threading.get_ident()

    def __call__(self, directory: str, step: int, saved: Callable[[], Saved]) -> None:
        """Call the function with the checkpoint that `saved` returns; raises AfterSaveError from any error."""
        if self._function is None:
            return
        self._thread = threading.get_ident()
        try:
            self._function(saved())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            hint = "the checkpoint is complete; after_save is not called for it again"
            raise AfterSaveError(directory, step, "after_save", reason, hint) from error
        finally:
            self._thread = None
