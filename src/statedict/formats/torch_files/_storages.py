"""The storages of torch.save's zip, by the keys that its pickle gives them: rows of a table where possible, or single."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from statedict.state import Absent, Leaf, RowKind, Storage, Table, leaves_of, map_tree

from ...errors import FormatError
from .._pickle import StorageId, TypedStorage
from ..checkpoint._walk import leaves
from ..storages._extent import Extent
from ..storages._file_table import UNKNOWN_CRC, TableSource
from ..zip._archive import Archive, located, member_bytes, path_of
from ..zip._directory import DEFLATED
from ..zip._members import UNKNOWN, ManyMembers

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]

# The longest number that fits into a column of 64-bit integers has more digits.
DIGITS = 18


class ArchiveStorages:
    """The storages of an archive, by the keys that its pickle gives them; members are `prefix` + key.

    Attributes:
        table: the tensors that cover a storage exactly. Those that a scan of the pickle has found become rows first, and
            get leaves when the reader arrives there (`offer`, `claim`); the others follow when all is read (`settle`).
        single: leaves that were read one by one.
        absent: the tensors whose files are missing from an unpacked archive.
    """

    def __init__(self, archive: Archive, prefix: str, big_endian: bool) -> None:
        self.source = TableSource(archive.file, prefix, self._name_of, self._locate if archive.waiting else None)
        self.table = Table(self.source, (), (), (), (), (), ())
        self.single: list[Leaf] = []
        self.absent: dict[int, Absent] = {}
        self.tree: object = None
        self._archive = archive
        self.prefix = prefix
        self._big_endian = big_endian
        self._found: dict[str, Storage] = {}
        self._missing_files: dict[Hashable, str] = {}
        self._kinds: dict[RowKind, int] = {}
        # The row with a leaf, for each storage by its key as a number; None if the storage was read by itself.
        self._rows: dict[int, int | None] = {}

    def find(self, wanted: StorageId) -> TypedStorage:
        """Return the storage that the pickle refers to; raise FormatError if its member is missing or too short.

        The error has no position: the reader of the pickle adds that.
        """
        storage = self._found.get(wanted.key)
        itemsize = wanted.dtype.itemsize if wanted.dtype else 1
        if storage is None:
            number = _number(wanted.key)
            row = self._rows.setdefault(number, None)
            storage = self._open(wanted, itemsize) if row is None else self.table.storage(row)
            self._found[wanted.key] = storage
        if wanted.numel * itemsize > storage.nbytes:
            raise FormatError(
                f"a storage of {wanted.numel:,} elements of {itemsize} bytes is named here, "
                f"but {self.prefix}{wanted.key} has {storage.nbytes:,} bytes"
            )
        return TypedStorage(storage, wanted.dtype, wanted.numel)

    @property
    def have_rows(self) -> bool:
        """Whether tensors can be offered column-wise: the members are columns, and of this machine's byte order."""
        return isinstance(self._archive.members, ManyMembers) and not self._big_endian

    def offer(self, kinds: Sequence[RowKind], claims: Sequence[int], of: Numbers, keys: Numbers) -> Numbers:
        import numpy as np

        # In the order of the pickle, so that the leaves of a state mostly are consecutive rows.
        self._adopt()
        members = cast(ManyMembers, self._archive.members)
        found = members.rows_of(self.prefix, keys)
        # -2 for kinds that do not cover the storage that they claim.
        lengths = np.array([claim if is_whole(kind, claim) else -2 for kind, claim in zip(kinds, claims)])[of]
        whole = np.flatnonzero((found >= 0) & (lengths == members.sizes[found]))
        some = found[whole]
        rows = np.full(len(found), -1)
        rows[whole] = len(self.table) + np.arange(len(whole))
        crcs = members.crcs[some] if self._archive.checked else np.full(len(some), UNKNOWN_CRC)
        which = np.array(list(map(self._kind, kinds)))[of[whole]]
        columns = which, members.offsets[some], members.sizes[some], crcs, keys[whole]
        self.table.extend(*(column.tolist() for column in columns))
        return rows

    def claim(self, row: int, count: int) -> list[Leaf] | None:
        rows = range(row, row + count)
        if count == 1:
            key = self.table.marks[1][row]
            return leaves_of(self.table, rows) if self._rows.setdefault(key, row) == row else None
        new = dict(zip(self.table.marks[1][row : row + count], rows))
        if len(new) < count or not self._rows.keys().isdisjoint(new):
            return None
        self._rows.update(new)
        return leaves_of(self.table, rows)

    def settle(self, tree: Any) -> Any:
        """Complete the storages with the tree that was read: rows for single leaves, names, byte order.

        Return the tree, with an Absent in place of each tensor whose file is missing from an unpacked archive.
        """
        if self._missing_files:
            lost = [(path, leaf) for path, leaf in leaves(tree) if leaf.storage.key in self._missing_files]
            self.absent = {id(leaf): Absent(path, self._missing_files[leaf.storage.key]) for path, leaf in lost}
            tree = map_tree(tree, lambda value: value, self.absent)
        self._complete(tree)
        return tree

    def _complete(self, tree: Any) -> None:
        self.tree = tree
        if not self._big_endian:
            self._adopt()
            return
        for _, leaf in leaves(tree):
            # Arrays that were pickled as bytes are in memory, in this machine's byte order.
            if leaf.storage.source is self.source:
                self._swap(leaf)

    def _adopt(self) -> None:
        """Make rows of the single leaves that cover a storage exactly, so that they can be read with the others."""
        adopted: dict[int, Leaf] = {}
        for leaf in self.single:
            if leaf.storage.source is self.source and is_whole(leaf, leaf.storage.nbytes):
                _, key = cast("tuple[int, str]", leaf.storage.key)  # as FileSource makes it
                extent: Extent = leaf.storage.where
                if self._rows[_number(key)] is None and not extent.inflate and extent.offset != UNKNOWN:
                    adopted.setdefault(_number(key), leaf)
        adopted.pop(-1, None)
        self.single.clear()
        leaves = list(adopted.values())
        kinds = [self._kind(RowKind(leaf.spec, leaf.traits, leaf.storage.location)) for leaf in leaves]
        extents: list[Extent] = [leaf.storage.where for leaf in leaves]
        starts, sizes = [extent.offset for extent in extents], [extent.nbytes for extent in extents]
        crcs = [UNKNOWN_CRC if extent.crc is None else extent.crc for extent in extents]
        for leaf, row in zip(leaves, self.table.extend(kinds, starts, sizes, crcs, list(adopted))):
            leaf.table, leaf.row = self.table, row

    def _kind(self, kind: RowKind) -> int:
        """Return the number of a kind in the table."""
        number = self._kinds.setdefault(kind, len(self._kinds))
        if number == len(self.table.kinds):
            self.table.kinds.append(kind)
        return number

    def _swap(self, leaf: Leaf) -> None:
        """Reverse the bytes of each element of a big-endian tensor's storage when it is read."""
        extent: Extent = leaf.storage.where
        size = leaf.spec.dtype.itemsize // (2 if leaf.spec.dtype.is_complex else 1)
        problem = None
        if leaf.storage.nbytes % size:
            problem = f"its {leaf.storage.nbytes:,} bytes are not a whole number of {leaf.spec.dtype} elements"
        elif extent.swap not in (1, size) and size > 1:
            problem = "tensors of several dtypes show it, so its byte order cannot be known"
        if problem is not None:
            raise FormatError(problem, file=self._archive.file.name, member=extent.member)
        leaf.storage.where = extent._replace(swap=max(size, extent.swap))

    def unused(self) -> list[str]:
        """Return the members among the storages that no tensor uses."""
        keys = [(name, name.removeprefix(self.prefix)) for name in self._archive.members]
        return [
            name
            for name, key in keys
            if name != key and key not in self._found and self._rows.get(_number(key)) is None
        ]

    def names_of_members(self) -> dict[str, str]:
        """Return, for each member that a tensor uses, the name of the first one."""
        shown = [(path, leaf.storage) for path, leaf in leaves(self.tree) if leaf.storage.source is self.source]
        return {storage.where.member: path for path, storage in reversed(shown)}

    def _open(self, wanted: StorageId, itemsize: int) -> Storage:
        name = self.prefix + wanted.key
        member = self._archive.members.get(name)
        if member is None and self._archive.top is not None:
            return self._missing(wanted, itemsize)
        if member is None:
            raise FormatError(f"a storage {wanted.key!r} is named here, but the archive has no {name}")
        inflate: Callable[[], bytes] | None = None
        if member.method == DEFLATED:
            inflate = partial(member_bytes, self._archive, member)
        crc = member.crc if self._archive.checked else None
        extent = Extent(member.offset, member.nbytes, name, crc, itemsize, 1, inflate)
        return self.source.storage(wanted.key, member.nbytes, extent, wanted.location)

    def _missing(self, wanted: StorageId, itemsize: int) -> Storage:
        """Return the storage of a file that was not unpacked or is lost: reading it raises an error that names the file."""
        absent = Absent(wanted.key, path_of(self._archive, self.prefix + wanted.key))
        self._missing_files[absent.storage.key] = absent.file
        return Storage(absent.storage.source, absent.storage.key, wanted.numel * itemsize, location=wanted.location)

    def _locate(self, storages: Sequence[Storage]) -> None:
        """Find the offsets of storages of whose members only the entries in the directory were read."""
        waiting = [storage for storage in storages if storage.where.offset == UNKNOWN]
        members = located(self._archive, [self._archive.members[storage.where.member] for storage in waiting])
        for storage, member in zip(waiting, members):
            storage.where = storage.where._replace(offset=member.offset)

    def _name_of(self, storage: Storage) -> str | None:
        return next((path for path, leaf in leaves(self.tree) if leaf.storage.key == storage.key), None)


def is_whole(tensor: Leaf | RowKind, nbytes: int) -> bool:
    """Return whether the tensor covers a storage of `nbytes` bytes, in order, and is not empty."""
    spec = tensor.spec
    contiguous = not spec.offset and spec.is_contiguous
    return contiguous and tensor.traits.attributes is None and 0 < spec.nbytes == nbytes


def _number(key: str) -> int:
    """Return the number that a key is the decimal text of; -1 for other keys."""
    number = int(key) if key.isdecimal() and key.isascii() and len(key) <= DIGITS else -1
    return number if str(number) == key else -1
