"""Which manager saves in a run in an object store: the one whose token is in the index."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex

from statedict.errors import LockedError, RunGoneError
from statedict.formats.runs import RunIndex

from .._holder import holder
from ._index import StoredIndex

UNLOCK = "if that process has ended, save with a new manager, which takes over the run"
TAKEN = "it has taken over the run, so this manager can no longer save here"
# The locks that the managers of this process hold: (process, token), because a forked child does not hold them.
LIVE: set[tuple[int, str]] = set()


class StoreLock:
    """The right to save in a run. It ends with `release`, or when another manager takes it.

    Raises LockedError if another manager of this process has it, or (unless `seize`) another process.
    """

    def __init__(self, url: str, index: StoredIndex, *, seize: bool) -> None:
        self._url, self._index = url, index
        self._token = token_hex(8)
        before = index.read()
        own = (os.getpid(), before.token) in LIVE
        if own or (before.holder and not seize):
            raise LockedError(url, before.holder, own=own, hint=UNLOCK)

        def taken(now: RunIndex) -> RunIndex:
            if now.token not in (before.token, self._token):
                raise self._lost(now)
            return replace(now, holder=holder(), token=self._token)

        index.change(taken)
        LIVE.add((os.getpid(), self._token))

    def holds(self) -> bool:
        """Whether the run exists; raises LockedError if another manager has taken it."""
        now = self._index.read()
        return bool(now.number) and self.checked(now) is now

    def checked(self, now: RunIndex) -> RunIndex:
        """Return the index; raise LockedError if another manager has taken the run, RunGoneError if it was deleted."""
        if not now.number:
            raise RunGoneError(self._url)
        if now.token != self._token:
            raise self._lost(now)
        return now

    def fence(self) -> RunIndex:
        """Change the index, so that requests which were sent before are refused; return it. Raises what `checked` raises."""
        return self._index.change(self.checked, always=True)

    def release(self) -> None:
        """Record that no manager saves here, unless another one already does."""
        LIVE.discard((os.getpid(), self._token))
        with suppress(LockedError, RunGoneError, OSError):
            self._index.change(lambda now: replace(self.checked(now), holder="", token=""))

    def _lost(self, now: RunIndex) -> LockedError:
        own = (os.getpid(), now.token) in LIVE
        return LockedError(self._url, now.holder or "another manager", own=own, hint=TAKEN)
