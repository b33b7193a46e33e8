"""The storages of torch.save's zip, by the keys that its pickle gives them: one at a time, many, thousands in columns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import compress, islice, repeat
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any, cast

from statedict.state import Leaf, Storage

from ...errors import FormatError
from .._pickle import Records, StorageId, TypedStorage
from ..checkpoint._walk import leaves
from ..storages._extent import Extent, FileSource
from ..zip._archive import Archive, located, member_bytes
from ..zip._directory import DEFLATED
from ..zip._headers import UNKNOWN
from ..zip._members import ManyMembers

if TYPE_CHECKING:
    from ._file_rows import FileRows

# States of fewer tensors are as quick with leaves of both kinds.
FEW = 256
# A state with more leaves that were read one by one is not a plain one.
ADOPTED = 64
FREE, TAKEN = -1, -2
DICTS = frozenset({dict, OrderedDict})
_ROW = attrgetter("row")


class ArchiveStorages:
    """The storages of an archive, by the keys that its pickle gives them; members are `prefix` + key."""

    def __init__(self, archive: Archive, prefix: str, big_endian: bool) -> None:
        self.source = FileSource(archive.file, self._name_of, self._locate if archive.waiting else None)
        self._archive = archive
        self._prefix = prefix
        self._big_endian = big_endian
        self._found: dict[str, Storage] = {}
        self.table: FileRows | None = None
        # Which row each member is; FREE or TAKEN where it is none.
        self._row_of: Any = None
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

    def rows(self, wanted: Records) -> list[Leaf] | None:
        """Leaves of many tensors at once; None where any is not all of a storage that is its own."""
        import numpy as np

        from ._file_rows import FileRows

        members = self._members
        found = members.rows_of(self._prefix, wanted.keys)
        if found is None:
            return None
        specs = [kind.spec for kind in wanted.kinds]
        if any(spec.offset or not spec.is_contiguous for spec in specs):
            return None
        nbytes = [spec.nbytes for spec in specs]
        sizes = members.sizes[found]
        if nbytes != wanted.claims or not all(nbytes) or (np.array(nbytes)[wanted.of] != sizes).any():
            return None
        if self.table is None:
            self.table = FileRows(self.source, self._prefix)
            self._row_of = np.full(len(members), FREE)
            self._take(self._found)
        numbers = np.arange(len(self.table.of), len(self.table.of) + len(found))
        if (self._row_of[found] != FREE).any():
            return None
        self._row_of[found] = numbers
        if (self._row_of[found] != numbers).any():  # two for one
            self._row_of[found] = FREE
            return None
        crcs = members.crcs[found] if self._archive.checked else np.full(len(found), -1)
        return self.table.add(wanted.kinds, wanted.of, np.array([members.offsets[found], sizes, crcs, wanted.keys]))

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
            for state in _flat_states(tree):
                # Two passes in C: 2 ms for 32,000, where asking each takes 7.
                alone = map(is_, map(_ROW, state), repeat(None))
                self._adopt(list(islice(compress(state, alone), ADOPTED + 1)))
        if self._big_endian:
            for _, leaf in leaves(tree):
                # Arrays that were pickled as bytes are in memory, the right way round.
                if leaf.storage.source is self.source:
                    self._turn(leaf)

    def _adopt(self, leaves: Sequence[Leaf]) -> None:
        """Make rows of the few leaves that were not read with the others, so that they can be looked at together."""
        assert self.table is not None
        for leaf in leaves if len(leaves) <= ADOPTED else ():
            if leaf.storage.source is not self.source:
                continue
            _, key = cast("tuple[int, str]", leaf.storage.key)  # as FileSource makes it
            number = self._members.numbers[self._prefix + key]
            if key == str(int(key)) and self._row_of[number] < 0 and self.table.adopt(leaf, int(key)):
                self._row_of[number] = leaf.row

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


def _flat_states(tree: Any) -> list[list[Leaf]]:
    """The leaves of each large mapping that holds nothing else and is the tree itself, or lies directly in it."""
    candidates = [tree, *tree.values()] if type(tree) in DICTS else []
    values = [list(part.values()) for part in candidates if type(part) in DICTS and len(part) >= FEW]
    return [leaves for leaves in values if set(map(type, leaves)) == {Leaf}]
