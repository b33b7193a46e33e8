"""One file that several processes write together, each the bytes that it has, into its place.

*Theory of operation.* One process, the leader, saves as usual (`write`, `write_set`): it lays out the file, creates it under
its temporary name and gives it its final one. Only the way in which the parts get into the new file differs: it is
`JointWriter.fill` instead of `fill`. The other processes follow the leader's orders. For each file they all meet twice:

1. The leader says which contents belong where in which file (Order). All of them write their runs of these contents.
2. All of them say how much they have written, and the shares of the checksums. The leader combines these, and writes the
   other parts: those that only it has, and those that contain checksums.

After the last file they meet once more: the leader reports that it has finished, or why not.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

from ..errors import SaveError
from ._atomic import Replacement
from ._checksum import ScatteredSum, whole_sum
from ._output import Contribution, Durable, Output
from ._write import PIECE, Part, Payload, fill
from .system import SYSTEM

# Consecutive bytes of a content: the first one's position in it, and the bytes in pieces.
Run = tuple[int, Iterable[memoryview]]


class Place(NamedTuple):
    """The position of a content in a file; `writers`: the processes that write it."""

    content: int
    offset: int
    nbytes: int
    writers: Sequence[int]


class Order(NamedTuple):
    """The leader's order for the next file: the path asked for, the temporary path, and the places of the contents."""

    path: str
    temporary: str
    durable: Durable
    places: Sequence[Place]


class Written(NamedTuple):
    """A process's result for a content: the number of bytes that it has written, and its share of the CRC-32."""

    nbytes: int
    share: int


class Meeting(Protocol):
    """The processes that write together. Each method is called by all of them, and returns when all have called it.

    Attributes:
        me: the number of this process.
    """

    me: int

    def order(self, order: Order | None) -> Order | None:
        """Return the leader's order; raise if any process has failed."""

    def fail(self, error: BaseException) -> None:
        """Make the others raise, because of this error; does nothing if they know that it is over."""

    def report(self, written: Sequence[Written]) -> Sequence[Sequence[Written]]:
        """Return the reports of all processes; raise if any has failed."""


class Contents(Protocol):
    """The contents that several processes have together, numbered in the same way by all of them."""

    def runs(self, content: int) -> Iterable[Sequence[Run] | Iterator[Run]]:
        """Return the runs that this process has of a content, as sequences in which they ascend."""

    def writers(self, content: int) -> Sequence[int]:
        """Return the processes that write a content: each of its bytes is written by exactly one of them."""

    def name(self, content: int) -> str:
        """Return the name of a content, for errors."""


class JointWriter:
    """The leader's way to write parts. `numbers`: the numbers of the contents, by the keys of their parts (`Payload.of`)."""

    def __init__(self, meeting: Meeting, contents: Contents, numbers: Mapping[Hashable, int]) -> None:
        self._meeting = meeting
        self._contents = contents
        self._numbers = numbers

    def fill(self, new: Replacement, parts: Sequence[Part], durable: Durable) -> None:
        """Write the parts into a new file, together with the other processes."""
        offsets = accumulate((part.nbytes for part in parts), initial=0)
        shared = [
            (offset, part)
            for offset, part in zip(offsets, parts)
            if isinstance(part, Payload) and part.nbytes and part.of in self._numbers
        ]
        places = []
        for offset, part in shared:
            number = self._numbers[part.of]
            places.append(Place(number, offset, part.nbytes, self._contents.writers(number)))
        self._meeting.order(Order(new.path, new.temporary, durable, places))
        try:
            written = write_own(new, self._meeting.me, places, self._contents, durable)
        except BaseException as error:
            # Before the file is removed: other processes may be about to open it.
            self._meeting.fail(error)
            raise
        for (_, part), place, reports in zip(shared, places, zip(*self._meeting.report(written))):
            self._require_all(place, sum(each.nbytes for each in reports))
            part.tell(whole_sum((each.share for each in reports), part.nbytes))
        fill(new, parts, durable, {id(part) for _, part in shared})

    def _require_all(self, place: Place, nbytes: int) -> None:
        if nbytes != place.nbytes:
            raise SaveError(
                f"{self._contents.name(place.content)}: the processes together have {nbytes:,} of its {place.nbytes:,} "
                "bytes; its shards do not cover it"
            )


def remove_abandoned(path: str) -> None:
    """Delete the temporary files of saves to `path` whose leaders have ended.

    The lock of an ending process may outlast its connections, so this waits a little for locks to be released.
    """
    stray = Replacement(path, 0, SYSTEM)
    for _ in range(50):
        if not stray.delete_strays():
            return
        time.sleep(0.1)


def follow(meeting: Meeting, contents: Contents) -> None:
    """Write what the leader orders, until it has finished."""
    while (order := meeting.order(None)) is not None:
        meeting.report(_obey(order, meeting.me, contents))


def _obey(order: Order, me: int, contents: Contents) -> list[Written]:
    try:
        with Contribution(order.path, SYSTEM, order.temporary) as file:
            written = write_own(file, me, order.places, contents, order.durable)
            file.flush(order.durable)
    except FileNotFoundError as error:
        raise SaveError(
            f"{order.path}: the file that another process has created here is not visible to this one; processes that save "
            "together must share the file system"
        ) from error
    return written


def write_own(file: Output, me: int, places: Sequence[Place], contents: Contents, durable: Durable) -> list[Written]:
    """Write the runs that this process has of the contents, and return how much of each."""
    found = []
    for place in places:
        share = nbytes = 0
        for runs in contents.runs(place.content) if me in place.writers else ():
            crc = ScatteredSum()
            for start, views in runs:
                nbytes += file.write(place.offset + start, _summed(crc, start, views), durable)
            share ^= crc.closed(place.nbytes)
        found.append(Written(nbytes, share))
    return found


def _summed(crc: ScatteredSum, start: int, views: Iterable[memoryview]) -> Iterator[memoryview]:
    """Yield the bytes of a run in pieces, each right after it was added to the checksum."""
    for view in views:
        for at in range(0, len(view), PIECE):
            piece = view[at : at + PIECE]
            crc.add(start, piece)
            yield piece
            start += len(piece)
