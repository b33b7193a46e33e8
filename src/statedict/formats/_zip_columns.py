"""The members of a zip in columns: a Member for each of 32,000 takes as long as reading the directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, ValuesView
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ._zip_entries import STORED
from ._zip_headers import Member

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]


class ManyMembers(Mapping[str, Member]):
    """Stored members, all located: a mapping from name to Member, which is made when it is asked for.

    Attributes:
        names: in the directory's order.
        text: the same, one a line.
        numbers: name to row.
        offsets, sizes, crcs: a column of each.
    """

    def __init__(self, names: Sequence[str], text: str, offsets: Numbers, sizes: Numbers, crcs: Numbers) -> None:
        self.names = names
        self.text = text
        self.numbers = dict(zip(names, range(len(names))))
        self.offsets = offsets
        self.sizes = sizes
        self.crcs = crcs

    def __getitem__(self, name: str) -> Member:
        row = self.numbers[name]
        offset, nbytes, crc = (int(column[row]) for column in (self.offsets, self.sizes, self.crcs))
        return Member(name, offset, nbytes, nbytes, STORED, crc)

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, name: object) -> bool:
        return name in self.numbers

    def values(self) -> ValuesView[Member]:
        sizes = self.sizes.tolist()
        columns = zip(self.names, self.offsets.tolist(), sizes, sizes, repeat(STORED), self.crcs.tolist())
        return dict(zip(self.names, map(Member._make, columns))).values()


def text_of(members: Mapping[str, Member]) -> str:
    """The members' names, one a line."""
    return members.text if isinstance(members, ManyMembers) else "\n".join(members)


def crcs_of(members: Mapping[str, Member]) -> list[int]:
    """Their CRC-32s, in order."""
    return members.crcs.tolist() if isinstance(members, ManyMembers) else [member.crc for member in members.values()]
