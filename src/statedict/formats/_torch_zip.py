"""torch.save's files since 1.6, read: a zip of one pickle and one member for each storage.

Theory of operation. Below one folder, whose name says nothing, lie `data.pkl` (the object; its tensors name storages by
key), `data/KEY` (the bytes of each), and small facts: `version`, `byteorder`, `.format_version`, `.storage_alignment`,
`.data/serialization_id`. PyTorch checks no CRC and, mapped, no length either; here both are, before a tensor is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from operator import gt, methodcaller, mul

from statedict.files import File
from statedict.state import Leaf, Storage

from ..errors import FormatError
from ._checkpoint import Checkpoint, Finding
from ._extent import Extent, FileSource
from ._limits import LIMITS, Limits
from ._pickle import Columns, StorageId, TypedStorage, parse
from ._serialization_id import is_ours
from ._walk import leaves
from ._zip import Archive, located, member_bytes, open_zip, read_member, verify_members
from ._zip_entries import DEFLATED, check_case
from ._zip_headers import UNKNOWN

PICKLE = "data.pkl"
EXTRA = "extra/"
LONGEST_EXTRA = 1 << 20
# torch 2.13 reads up to 10 and writes 3.
NEWEST = 10
FACTS = ("version", "byteorder", ".format_version", ".storage_alignment")


def read_torch_zip(file: File, limits: Limits = LIMITS, archive: Archive | None = None) -> Checkpoint:
    """The Checkpoint in a file that torch.save wrote; `archive` is it as a zip, if that is known already."""
    archive = archive or open_zip(file, limits)
    folder = top_folder(archive)
    facts = read_facts(archive, folder)
    storages = ArchiveStorages(archive, f"{folder}data/", facts.get("byteorder") == "big")
    member = folder + PICKLE
    data = read_member(archive, member)
    parsed = parse(
        data, storage=storages.find, storages=storages.find_all, file=file.name, member=member, limits=limits
    )
    storages.settle(parsed.value)
    return Checkpoint(
        file.name,
        "torch",
        parsed.value,
        size=file.size,
        producer="statedict" if is_ours(archive, folder) else "PyTorch",
        globals=parsed.globals,
        notes=archive.notes,
        metadata=facts | read_extras(archive, folder),
        checks=partial(check_members, archive, storages),
        close=file.close,
    )


def top_folder(archive: Archive) -> str:
    """The one folder in which all members lie, with its slash."""
    check_case(list(archive.members), archive.file.name)
    folder = next(iter(archive.members), "").partition("/")[0] + "/"
    if folder == "/" or not all(map(methodcaller("startswith", folder), archive.members)):
        raise FormatError("its members do not lie in one folder", file=archive.file.name)
    return folder


def read_facts(archive: Archive, folder: str) -> dict[str, str]:
    """The small members that say how the file was written, checked as far as reading it depends on them."""
    facts = {}
    located(archive, [archive.members[folder + name] for name in FACTS if folder + name in archive.members])
    for name in FACTS:
        if folder + name in archive.members:
            facts[name] = read_member(archive, folder + name).decode("latin-1").strip()[:100]
    version = facts.get("version", "0")
    if not (version.isdecimal() and version.isascii() and len(version) < 10 and int(version) <= NEWEST):
        raise FormatError(
            f"it says that its version is {version!r}; versions up to {NEWEST} are known",
            file=archive.file.name,
            member=f"{folder}version",
        )
    order = facts.get("byteorder", "little")
    if order not in ("little", "big"):
        raise FormatError(
            f"the byte order should be 'little' or 'big', not {order!r}",
            file=archive.file.name,
            member=f"{folder}byteorder",
        )
    return facts


def read_extras(archive: Archive, folder: str) -> dict[str, str]:
    """The members below `extra/`, which are whatever text a program keeps with the file; long ones are left out."""
    inside = folder + EXTRA
    return {
        name.removeprefix(inside): read_member(archive, name).decode("utf-8", "replace")
        for name, member in archive.members.items()
        if name.startswith(inside) and member.nbytes <= LONGEST_EXTRA
    }


class ArchiveStorages:
    """The storages of an archive, by the keys that its pickle gives them; members are `prefix` + key."""

    def __init__(self, archive: Archive, prefix: str, big_endian: bool) -> None:
        self.source = FileSource(archive.file, self._name_of, self._locate if archive.waiting else None)
        self._archive = archive
        self._prefix = prefix
        self._big_endian = big_endian
        self._found: dict[str, Storage] = {}
        self._tree: object = None

    def find(self, wanted: StorageId) -> TypedStorage:
        """The storage that the pickle names; raises FormatError where its member is missing or too short.

        The error says nothing of the file: who reads the pickle knows that, and where in it the storage is named.
        """
        storage = self._found.get(wanted.key)
        itemsize = wanted.dtype.itemsize if wanted.dtype else 1
        if storage is None:
            storage = self._found[wanted.key] = self._open(wanted, itemsize)
        if wanted.numel * itemsize > storage.nbytes:
            raise FormatError(
                f"a storage of {wanted.numel:,} elements of {itemsize} bytes is named here, "
                f"but {self._prefix}{wanted.key} has {storage.nbytes:,} bytes"
            )
        return TypedStorage(storage, wanted.dtype, wanted.numel)

    def find_all(self, wanted: Columns) -> list[Storage]:
        """The same for many at once."""
        members = list(map(self._archive.members.get, [self._prefix + key for key in wanted.keys]))
        known = [member for member in members if member is not None]
        new = len(set(wanted.keys)) == len(wanted.keys) and self._found.keys().isdisjoint(wanted.keys)
        sizes = [member.nbytes for member in known]
        itemsizes = [of.itemsize for of in wanted.dtypes]
        if (
            len(known) < len(members)
            or not new
            or any(member.method == DEFLATED for member in known)
            or any(map(gt, map(mul, wanted.counts, itemsizes), sizes))
        ):
            return [self.find(each).storage for each in wanted.ids()]
        crcs = [member.crc for member in known] if self._archive.checked else repeat(None)
        columns = [member.offset for member in known], sizes, [member.name for member in known], crcs, itemsizes
        # `_make` is a function of Python's; this is what it calls.
        extents = map(tuple.__new__, repeat(Extent), zip(*columns, repeat(1), repeat(None), repeat(0)))
        storages = self.source.storages(wanted.keys, sizes, extents, wanted.locations)
        self._found.update(zip(wanted.keys, storages))
        return storages

    def settle(self, tree: object) -> None:
        """Learn from the tree that was read which tensor shows which storage, and how its elements are to be turned."""
        self._tree = tree
        if self._big_endian:
            for _, leaf in leaves(tree):
                # Arrays that were pickled as bytes are in memory, the right way round.
                if leaf.storage.source is self.source:
                    self._turn(leaf)

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
            if name.startswith(self._prefix) and name.removeprefix(self._prefix) not in self._found
        ]

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
        return next((path for path, leaf in leaves(self._tree) if leaf.storage is storage), None)


def check_members(archive: Archive, storages: ArchiveStorages) -> Iterator[Finding]:
    """What is wrong with the bytes of the archive: every member against its CRC."""
    shown = [(path, leaf.storage) for path, leaf in leaves(storages._tree) if leaf.storage.source is storages.source]
    names = {storage.where.member: path for path, storage in reversed(shown)}
    for member, crc in verify_members(archive, archive.members.values()):
        yield Finding(
            "error",
            names.get(member.name, member.name),
            f"the bytes of {member.name} have changed since they were written: "
            f"their CRC-32 is {crc:08x} and should be {member.crc:08x}",
        )
    unused = storages.unused()
    if unused:
        yield Finding("note", "", f"{len(unused)} storages belong to no tensor: {', '.join(unused[:5])}")
