"""An object store whose lists are out of date, whose responses get lost, and whose requests arrive after their sender died.

What a store promises is kept: an object is written completely or not at all, a read by key sees the last write, and a
conditional write is atomic. An ETag is a hash of the content, as in S3, so equal content has an equal ETag.

A request that was sent may be carried out later, when its sender has seen an error or has died: also a deletion, which has
no condition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import md5
from random import Random
from typing import NamedTuple

from statedict.errors import ConflictError
from statedict.files import ABSENT

# A list that is out of date shows the store as it was about so many writes ago.
AGE = 6


class Write(NamedTuple):
    """A write of an object: its content (None: the object is deleted), and the ETag that it must have (None: any)."""

    key: str
    content: bytes | None
    if_match: str | None = None


class Store:
    """Objects by key. `clock` returns nanoseconds.

    Attributes:
        objects: key → content.
        written: key → when that was, in nanoseconds.
        late: requests that were sent and are still on their way.
        staleness: the probability that a list is out of date.
        faults: the probability that a request fails.
    """

    def __init__(self, clock: Callable[[], int], *, staleness: float, faults: float) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, int] = {}
        self.late: list[Write] = []
        self.staleness, self.faults = staleness, faults
        self._clock = clock
        # Key and content before each write.
        self._history: list[tuple[str, bytes | None]] = []

    def do(self, write: Write) -> None:
        """Carry a write out; raises ConflictError if its condition is not met."""
        key, content, condition = write
        now = self.objects.get(key)
        if condition is not None and condition != (ABSENT if now is None else etag_of(now)):
            raise ConflictError(key)
        self._history.append((key, now))
        if content is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = content
            self.written[key] = self._clock()

    def arrive(self, write: Write) -> None:
        """Carry a late write out, if its condition is still met."""
        with suppress(ConflictError):
            self.do(write)

    def settle(self) -> None:
        """Let everything arrive that is on its way."""
        while self.late:
            self.arrive(self.late.pop(0))

    def list(self, prefix: str, random: Random | None = None) -> list[str]:
        """The keys that begin with `prefix`; `random`, if the list may be out of date, draws what it shows."""
        keys = set(self.objects)
        if random is not None and random.random() < self.staleness:
            age = 1 + int(random.expovariate(1 / AGE))
            # Either the whole store as it was, or each object that was written since, with or without that.
            whole = random.random() < 0.5
            for key, before in reversed(self._history[-age:]):
                if whole or random.random() < 0.5:
                    (keys.discard if before is None else keys.add)(key)
        return sorted(key for key in keys if key.startswith(prefix))

    def before(self, key: str) -> bytes:
        """What an object has, or has had before it was deleted."""
        if key in self.objects:
            return self.objects[key]
        return next(content for name, content in reversed(self._history) if name == key and content is not None)

    def cut(self, random: Random) -> None:
        """Do nothing: when the computers lose power, the store goes on."""


def etag_of(content: bytes) -> str:
    """The ETag of an object with this content."""
    return md5(content).hexdigest()


def some(writes: Sequence[Write], random: Random) -> list[Write]:
    """Those of several writes that were carried out when their response was lost."""
    return [write for write in writes if random.random() < 0.5]
