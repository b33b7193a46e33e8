"""The storages of torch.save's zip, by the keys that its pickle gives them: one at a time, many, thousands in columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from statedict.state import Leaf, Storage, leaf_at, leaves_of

from ...errors import FormatError
from .._pickle import Records, StorageId, TypedStorage
from ..checkpoint._walk import leaves
from ..storages._extent import Extent, FileSource
from ..zip._archive import Archive, located, member_bytes
from ..zip._directory import DEFLATED
from ..zip._headers import UNKNOWN
from ..zip._members import ManyMembers

if TYPE_CHECKING:
    from ._file_rows import FileRows, Numbers

FREE, TAKEN = -1, -2
# The keys that fit into a column.
DECIMAL = re.compile("0|[1-9][0-9]{0,17}")


class ArchiveStorages:
    """The storages of an archive, by the keys that its pickle gives them; members are `prefix` + key."""

    def __init__(self, archive: Archive, prefix: str, big_endian: bool) -> None:
        self.source = FileSource(archive.file, self._name_of, self._locate if archive.waiting else None)
        self._archive = archive
        self._prefix = prefix
        self._big_endian = big_endian
        self._found: dict[str, Storage] = {}
        self.alone: list[Leaf] = []
        self.table: FileRows | None = None
        # Which row each member is; FREE or TAKEN where it is not a row. Which member each row is.
        self._row_of: Any = None
        self._member_of: Any = None
        self.tree: object = None

    def find(self, wanted: StorageId) -> TypedStorage:
        """The storage that the pickle names; raises FormatError where its member is missing or too short.

        The error says nothing of the file: who reads the pickle knows that, and where in it the storage is named.
        """
        storage = self._found.get(wanted.key)
        itemsize = wanted.dtype.itemsize if wanted.dtype else 1
        if storage is None:
            row = self._row(wanted.key)
            if row >= 0 and self.table is not None:
                storage = self.table.storage(row)
            else:
                storage = self._open(wanted, itemsize)
                self._take([wanted.key])
            self._found[wanted.key] = storage
        if wanted.numel * itemsize > storage.nbytes:
            raise FormatError(
                f"a storage of {wanted.numel:,} elements of {itemsize} bytes is named here, "
                f"but {self._prefix}{wanted.key} has {storage.nbytes:,} bytes"
            )
        return TypedStorage(storage, wanted.dtype, wanted.numel)

    @property
    def have_rows(self) -> bool:
        """Whether many tensors can be had in columns: where the members are, and need no turning round."""
        return isinstance(self._archive.members, ManyMembers) and not self._big_endian

    @property
    def _members(self) -> ManyMembers:
        return cast(ManyMembers, self._archive.members)

    def offer(self, records: Records) -> Numbers:
        """Rows for those records that are all of a member each."""
        import numpy as np

        from ._file_rows import FileRows

        members = self._members
        if self.table is None:
            self.table = FileRows(self.source, self._prefix)
            self._row_of = np.full(len(members), FREE)
            self._member_of = np.zeros(0, np.int64)
            self._take(self._found)
        found = members.rows_of(self._prefix, records.keys)
        # What a tensor of each kind must have, and what its storage is said to have; -2 where it is not all of it.
        lengths = np.array(
            [
                spec.nbytes if spec.nbytes == claim and not spec.offset and spec.is_contiguous else -2
                for (spec, *_), claim in zip(records.kinds, records.claims)
            ]
        )[records.of]
        whole = np.flatnonzero((found >= 0) & (lengths > 0) & (lengths == members.sizes[found]))
        rows = np.full(len(found), -1)
        rows[whole] = len(self.table.of) + np.arange(len(whole))
        some = found[whole]
        crcs = members.crcs[some] if self._archive.checked else np.full(len(some), -1)
        extents = np.array([members.offsets[some], members.sizes[some], crcs, records.keys[whole]])
        self.table.add(records.kinds, records.of[whole], extents)
        self._member_of = np.concatenate([self._member_of, some])
        return rows

    def claim(self, row: int, count: int) -> list[Leaf] | None:
        """Leaves of offered rows; None where another tensor has one of the storages already."""
        assert self.table is not None
        members = self._member_of[row : row + count]
        rows = range(row, row + count)
        if not (self._row_of[members] == FREE).all():
            return None
        self._row_of[members] = rows
        if (self._row_of[members] != rows).any():  # two for one
            self._row_of[members] = FREE
            return None
        return leaves_of(self.table, rows)

    def claim_one(self, row: int) -> Leaf | None:
        assert self.table is not None
        member = self._member_of.item(row)
        if self._row_of.item(member) != FREE:
            return None
        self._row_of[member] = row
        return leaf_at(self.table, row)

    def _row(self, key: str) -> int:
        """Which row a key's storage is, or a negative number."""
        number = None if self.table is None else self._members.numbers.get(self._prefix + key)
        return FREE if number is None else int(self._row_of[number])

    def _take(self, keys: Iterable[str]) -> None:
        """Have no rows made of these storages, which were found by themselves."""
        if self.table is not None:
            for key in keys:
                self._row_of[self._members.numbers[self._prefix + key]] = TAKEN

    def settle(self, tree: Any) -> None:
        """Learn from the tree that was read which tensor shows which storage, and how its elements are to be turned."""
        self.tree = tree
        if self.table is not None:
            self._adopt(self.table)
        if self._big_endian:
            for _, leaf in leaves(tree):
                # Arrays that were pickled as bytes are in memory, the right way round.
                if leaf.storage.source is self.source:
                    self._turn(leaf)

    def _adopt(self, table: FileRows) -> None:
        """Make rows of the leaves that were read one by one too, so that all can be looked at together."""
        adopted: dict[str, Leaf] = {}
        for leaf in self.alone:
            if leaf.storage.source is self.source:
                _, key = cast("tuple[int, str]", leaf.storage.key)  # as FileSource makes it
                if self._row(key) < 0 and DECIMAL.fullmatch(key) and is_whole(leaf):
                    adopted.setdefault(key, leaf)
        if adopted:
            table.adopt(list(adopted.values()), list(adopted))

    def _turn(self, leaf: Leaf) -> None:
        """Have the storage of a big-endian tensor turned round, element by element, when it is read."""
        extent: Extent = leaf.storage.where
        size = leaf.spec.dtype.itemsize // (2 if leaf.spec.dtype.is_complex else 1)
        problem = None
        if leaf.storage.nbytes % size:
            problem = f"its {leaf.storage.nbytes:,} bytes are no whole number of {leaf.spec.dtype} elements"
        elif extent.swap not in (1, size) and size > 1:
            problem = "tensors of several dtypes show it, so its byte order cannot be known"
        if problem is not None:
            raise FormatError(problem, file=self._archive.file.name, member=extent.member)
        leaf.storage.where = extent._replace(swap=max(size, extent.swap))

    def unused(self) -> list[str]:
        """The members among the storages that no tensor shows."""
        return [
            name
            for name in self._archive.members
            if name.startswith(self._prefix)
            and name.removeprefix(self._prefix) not in self._found
            and self._row(name.removeprefix(self._prefix)) < 0
        ]

    def names_of_members(self) -> dict[str, str]:
        """For each member that a tensor shows, the name of the first that does."""
        shown = [(path, leaf.storage) for path, leaf in leaves(self.tree) if leaf.storage.source is self.source]
        return {storage.where.member: path for path, storage in reversed(shown)}

    def _open(self, wanted: StorageId, itemsize: int) -> Storage:
        name = self._prefix + wanted.key
        member = self._archive.members.get(name)
        if member is None:
            raise FormatError(f"a storage {wanted.key!r} is named here, but the archive has no {name}")
        inflate: Callable[[], bytes] | None = None
        if member.method == DEFLATED:
            inflate = partial(member_bytes, self._archive, member)
        crc = member.crc if self._archive.checked else None
        extent = Extent(member.offset, member.nbytes, name, crc, itemsize, 1, inflate)
        return self.source.storage(wanted.key, member.nbytes, extent, wanted.location)

    def _locate(self, storages: Sequence[Storage]) -> None:
        """Find out where storages lie, of whose members only the directory's entries have been looked at."""
        waiting = [storage for storage in storages if storage.where.offset == UNKNOWN]
        members = located(self._archive, [self._archive.members[storage.where.member] for storage in waiting])
        for storage, member in zip(waiting, members):
            storage.where = storage.where._replace(offset=member.offset)

    def _name_of(self, storage: Storage) -> str | None:
        return next((path for path, leaf in leaves(self.tree) if leaf.storage is storage), None)


def is_whole(leaf: Leaf) -> bool:
    """Whether the leaf is all of its storage, as it lies in the file."""
    spec, nbytes = leaf.spec, leaf.storage.nbytes
    contiguous = not spec.offset and spec.is_contiguous
    return contiguous and leaf.traits.attributes is None and 0 < spec.nbytes == nbytes == leaf.storage.where.nbytes
