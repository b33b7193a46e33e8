"""`.writer`, the object that says which manager saves in a run, and the newest step."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from secrets import token_hex
from typing import NamedTuple

from statedict.errors import ConflictError, LockedError
from statedict.files import ABSENT, Bucket, put_surely, read_all
from statedict.formats.runs import WRITER

from .._holder import holder

UNLOCK = f"if that process has ended, save with a new manager, which takes over the run, or delete the object {WRITER}"


class Writer(NamedTuple):
    """The content of `.writer`.

    Attributes:
        holder: the process, as text; empty if its manager has released the run.
        token: which manager it is.
        newest: the highest step that was completed; -1 if there is none.
        number: increases with each change, so that no two contents are the same.
    """

    holder: str
    token: str
    newest: int
    number: int

    def dump(self) -> bytes:
        return json.dumps({"format": "statedict run", **self._asdict()}).encode() + b"\n"


NOBODY = Writer("", "", -1, 0)
FIELDS = {"holder": str, "token": str, "newest": int, "number": int}


def read_writer(bucket: Bucket) -> tuple[Writer, str]:
    """Return the content of `.writer` and its ETag; NOBODY and ABSENT if there is no such object."""
    try:
        raw, etag = read_all(bucket, WRITER)
    except FileNotFoundError:
        return NOBODY, ABSENT
    try:
        content = json.loads(raw)
        return Writer(*(kind(content[name]) for name, kind in FIELDS.items())), etag
    except (ValueError, KeyError, TypeError):
        # Damaged: nothing is lost, because it only says who saves here. The next manager replaces it.
        return NOBODY, etag


class StoreLock:
    """The right to save in a run. It ends with `release`, or when another manager takes it.

    Raises LockedError if another manager of this process has it, or (unless `seize`) another process.
    """

    def __init__(self, bucket: Bucket, *, seize: bool) -> None:
        self._bucket = bucket
        self._token = token_hex(8)
        now, self._etag = read_writer(bucket)
        own = (os.getpid(), now.token) in LIVE
        if own or (now.holder and not seize):
            raise LockedError(bucket.url, now.holder, own=own, hint=UNLOCK)
        self._replace(Writer(holder(), self._token, now.newest, now.number + 1))
        LIVE.add((os.getpid(), self._token))

    def holds(self) -> bool:
        """Whether `.writer` exists; raises LockedError if another manager has replaced it."""
        now, etag = read_writer(self._bucket)
        if etag == ABSENT:
            return False
        if now.token != self._token:
            raise self._lost(now)
        self._now, self._etag = now, etag
        return True

    def note_newest(self, step: int) -> None:
        """Record that a step was completed; raise LockedError if another manager has taken the run meanwhile."""
        # A job that goes back saves a step that is not the newest.
        self._replace(self._now._replace(newest=max(step, self._now.newest), number=self._now.number + 1))

    def release(self) -> None:
        """Record that no manager saves here, unless another one already does."""
        LIVE.discard((os.getpid(), self._token))
        with suppress(LockedError, OSError):
            self._replace(self._now._replace(holder="", token="", number=self._now.number + 1))

    def _replace(self, content: Writer) -> None:
        try:
            self._etag = put_surely(self._bucket, WRITER, content.dump(), if_match=self._etag)
        except ConflictError:
            raise self._lost(read_writer(self._bucket)[0]) from None
        self._now = content

    def _lost(self, now: Writer) -> LockedError:
        own = (os.getpid(), now.token) in LIVE
        return LockedError(self._bucket.url, now.holder or "another manager", own=own, hint=TAKEN)


TAKEN = "it has taken over the run, so this manager can no longer save here"
# The locks that the managers of this process hold: (process, token), because a forked child does not hold them.
LIVE: set[tuple[int, str]] = set()
