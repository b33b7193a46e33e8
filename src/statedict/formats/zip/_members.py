"""The members of a zip in columns: a Member for each of 32,000 takes as long as reading the directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, ValuesView
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ._directory import STORED
from ._headers import Member

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]


class ManyMembers(Mapping[str, Member]):
    """Stored members, all located: a mapping from name to Member, which is made when it is asked for.

    Attributes:
        names: in the directory's order; text: the same, one a line; numbers: of each name.
        offsets, sizes, crcs: a column of each.
    """

    def __init__(self, names: list[str], offsets: Numbers, sizes: Numbers, crcs: Numbers) -> None:
        self.names = names
        self.text = "\n".join(names)
        self.numbers = dict(zip(names, range(len(names))))
        self.offsets = offsets
        self.sizes = sizes
        self.crcs = crcs
        self._runs: dict[str, tuple[int, int]] = {}

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

    def rows_of(self, prefix: str, numbers: Numbers) -> Numbers:
        """The rows of the members whose names are the prefix and these numbers; -1 where one is missing."""
        import numpy as np

        first, count = self._run(prefix)
        if count and numbers.max() < count:
            return first + numbers
        return np.array([self.numbers.get(f"{prefix}{number}", -1) for number in numbers.tolist()])

    def _run(self, prefix: str) -> tuple[int, int]:
        """Where the member is whose name is the prefix and 0, and how many there are with the prefix, if they lie one after
        the other in the order of their numbers, as PyTorch writes them; otherwise 0 of them."""
        if prefix not in self._runs:
            count = f"\n{self.text}".count(f"\n{prefix}")
            expected = f"\n{prefix}".join(map(str, range(count)))
            whole = f"\n{prefix}{expected}\n" in f"\n{self.text}\n"
            self._runs[prefix] = (self.numbers[f"{prefix}0"], count) if count and whole else (0, 0)
        return self._runs[prefix]

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
