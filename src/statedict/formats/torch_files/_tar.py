"""Read PyTorch's oldest files (≤ 0.1): a tar of pickles and bytes.

Theory of operation. `storages` contains their number, then for each a pickle (key, location, type), its number of
elements and its elements, then a pickle of views (key, key of the whole, offset, elements). `tensors` contains their
number, then for each a pickle (key, key of its storage, type) and its dimensions, sizes, strides and offset. `pickle`
is the object, whose persistent ids are keys of tensors. Nothing is unpacked to disk, and members other than regular
files are refused.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NamedTuple

from statedict.files import File
from statedict.state import Leaf, Opaque

from ...errors import FormatError, TruncatedError
from .._foreign_formats import other_archive
from .._format import function
from .._limits import LIMITS, Limits
from .._names import WEIGHTS
from .._pickle import Import, TypedStorage, spec_in, storage_dtype
from ..checkpoint._checkpoint import Checkpoint
from ..storages._describe import shown
from ..storages._extent import Extent
from ..storages._file_source import FileSource
from ._legacy import UNCHECKED, nested_reader
from ._stacked_pickles import Stacked, parse_at

# An archive is written in records of twenty blocks, the last padded with zeros.
BLOCK = 512
RECORD = 20 * BLOCK
PIECE = 1 << 20
# Types of members: regular files, folders, and extended headers for the next member or all of them.
PLAIN = (b"0", b"\0")
FOLDER = b"5"
FACTS = (b"x", b"g")
# Extended headers that would redefine members; timestamps and the like do not matter.
DECISIVE = re.compile(rb"\d+ (?:path|linkpath|size|GNU\.[^=]*)=")
LONGEST_FACTS = 64 << 10
PARTS = ("storages", "tensors", "pickle")
# Reads a tar whose members are files of weights: NeMo's.
OTHER_TAR = ".folders._archives:read_tar_files"


class TarMember(NamedTuple):
    """A member of the tar: bytes `offset … offset + nbytes` of the file."""

    offset: int
    nbytes: int


def read_torch_tar(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint in a tar that torch.save wrote before 0.1.13."""
    members = read_tar(file)
    if not members.keys() >= set(PARTS) and any(name.endswith(WEIGHTS) for name in members):
        found: Checkpoint = function(OTHER_TAR)(file, limits, members)
        return found
    members = _parts(file, members)
    reader = _TarReader(file, limits)
    tensors = reader.tensors(members["tensors"], reader.storages(members["storages"]))
    content = reader.parse(
        members["pickle"].offset,
        "pickle",
        persistent=partial(_tensor, tensors),
        nested=nested_reader(limits),
    )
    return Checkpoint(
        file.name,
        "torch-tar",
        content.parsed.value,
        size=file.size,
        producer="PyTorch",
        globals=list(dict.fromkeys(reader.imports)),
        notes=[UNCHECKED],
        close=file.close,
    )


def read_tar_tensors(file: File) -> tuple[dict[str, Leaf], bytes]:
    """Return the tensors in a tar by the keys that its object uses, and the object as an unread pickle."""
    members = _parts(file, read_tar(file))
    reader = _TarReader(file, LIMITS)
    tensors = reader.tensors(members["tensors"], reader.storages(members["storages"]))
    return tensors, file.read(*members["pickle"])


def _parts(file: File, members: dict[str, TarMember]) -> dict[str, TarMember]:
    """Return the members of a tar, which must be those of torch.save."""
    if not members.keys() >= set(PARTS):
        raise other_archive("tar", file.name, members)
    return members


def read_tar(file: File) -> dict[str, TarMember]:
    """Return the regular files of a tar, by name.

    Raises FormatError for links, devices, duplicate names and bytes after the end, TruncatedError if the end is missing.
    """
    members: dict[str, TarMember] = {}
    at = 0
    while at + BLOCK <= file.size:
        header = file.read(at, BLOCK)
        if not header.strip(b"\0"):
            if file.size % RECORD:
                break
            _check_end(file, at)
            return members
        name = header[:100].rstrip(b"\0").decode("latin-1").removeprefix("./")
        nbytes, kind = _number(file, header[124:136], at), header[156:157]
        if "\0" in name or header[345:500].strip(b"\0") or (kind == FOLDER and nbytes):
            # tarfile truncates the first, puts the second before the name, and reads the third as headers.
            raise FormatError(
                "its header is ambiguous: other readers interpret it differently",
                file=file.name,
                member=name,
                offset=at,
            )
        # The checksum is that of the header with spaces in the checksum field.
        if _number(file, header[148:156], at) != sum(header) - sum(header[148:156]) + 8 * 32:
            raise FormatError("a header of the tar archive is invalid", file=file.name, offset=at)
        if kind in PLAIN and name not in members:
            members[name] = TarMember(at + BLOCK, nbytes)
        elif kind in FACTS:
            _check_facts(file, name, at + BLOCK, nbytes)
        elif kind != FOLDER:
            what = "occurs twice" if name in members else "is not a regular file"
            raise FormatError(f"it {what}", file=file.name, member=name)
        at += BLOCK + -(-nbytes // BLOCK) * BLOCK
    raise TruncatedError(
        f"the file has {file.size:,} of at least {at + BLOCK:,} bytes; the end of the tar archive is missing",
        file=file.name,
    )


def _check_end(file: File, at: int) -> None:
    """Raise FormatError if anything but zeros follows the end mark of a tar, such as another tar."""
    for start in range(at, file.size, PIECE):
        if file.read(start, min(PIECE, file.size - start)).strip(b"\0"):
            raise FormatError(
                "bytes follow the end of the tar archive",
                file=file.name,
                offset=start,
                hint="if another archive was appended to it, separate them",
            )


def _check_facts(file: File, name: str, offset: int, nbytes: int) -> None:
    if nbytes > LONGEST_FACTS or DECISIVE.search(file.read(offset, nbytes)):
        raise FormatError("it redefines another member", file=file.name, member=name)


def _number(file: File, field: bytes, at: int) -> int:
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise FormatError("a header of the tar archive is invalid", file=file.name, offset=at)
    return int(digits, 8)


def _tensor(tensors: dict[str, Leaf], pid: Any) -> object:
    """Return the value for a persistent id of the object: a tensor, or for (class, source file, source) the class."""
    if isinstance(pid, tuple) and pid:
        return pid[0]
    key = _key(pid)
    if key not in tensors:
        raise FormatError(f"the object refers to the tensor {key[:100]!r}, which is missing")
    return tensors[key]


class _TarReader:
    """Reads the members' pickles and numbers, one after the other; `imports` collects those of all pickles."""

    def __init__(self, file: File, limits: Limits) -> None:
        self.imports: list[Import] = []
        self._file = file
        self._limits = limits
        self._source = FileSource(file)
        self._source.expansion = limits.expansion

    def parse(self, at: int, member: str, **callbacks: Any) -> Stacked:
        stacked = parse_at(self._file, at, member, self._limits, **callbacks)
        self.imports += stacked.parsed.globals
        return stacked

    def fields(self, at: int, member: str, length: int) -> tuple[tuple[Any, ...], int]:
        """Read a pickled tuple of that length; return it and the offset after it."""
        stacked = self.parse(at, member)
        value = stacked.parsed.value
        if type(value) is not tuple or len(value) != length:
            raise FormatError(
                f"expected a pickled tuple of {length} items", file=self._file.name, member=member, offset=at
            )
        return value, stacked.end

    def count(self, at: int, member: str) -> tuple[int, int]:
        """Read a pickled non-negative integer; return it and the offset after it."""
        stacked = self.parse(at, member)
        value = stacked.parsed.value
        if type(value) is not int or not 0 <= value <= self._file.size:
            raise FormatError("expected a pickled non-negative integer", file=self._file.name, member=member, offset=at)
        return value, stacked.end

    def integers(self, at: int, member: str, count: int, width: int = 8) -> list[int]:
        raw = self._file.read(at, count * width)
        return [int.from_bytes(raw[i : i + width], "little", signed=True) for i in range(0, len(raw), width)]

    def storages(self, extract: TarMember) -> dict[str, TypedStorage]:
        """Return the storages by key, including views of others."""
        found: dict[str, TypedStorage] = {}
        count, at = self.count(extract.offset, "storages")
        for _ in range(count):
            (key, location, kind), at = self.fields(at, "storages", 3)
            key, location = _key(key), _key(location)
            dtype = _dtype(kind)
            itemsize = dtype.itemsize if dtype else 1
            (numel,) = self.integers(at, "storages", 1)
            at += 8
            if numel < 0 or at + numel * itemsize > extract.offset + extract.nbytes:
                raise FormatError(
                    f"storage {shown(key)} has {numel:,} elements according to its pickle, more than the file",
                    file=self._file.name,
                    member="storages",
                )
            extent = Extent(at, numel * itemsize, f"storage {key}", None, itemsize)
            storage = self._source.storage(key, extent.nbytes, extent, location)
            found[key] = TypedStorage(storage, dtype, numel)
            at += extent.nbytes
        views = self.parse(at, "storages").parsed.value
        for view in views if isinstance(views, list) else []:
            self._add_view(found, view)
        return found

    def _add_view(self, found: dict[str, TypedStorage], view: Any) -> None:
        fields: tuple[Any, ...] = view if type(view) is tuple and len(view) == 4 else ("", "", 0, 0)
        key, root, offset, numel = fields
        whole = found.get(_key(root))
        if whole is None:
            raise FormatError("the description of a view is malformed", file=self._file.name, member="storages")
        itemsize = whole.dtype.itemsize if whole.dtype else 1
        counts = type(offset) is int and type(numel) is int and min(offset, numel) >= 0
        if not counts or (offset + numel) * itemsize > whole.nbytes:
            raise FormatError("a view exceeds its storage", file=self._file.name, member="storages")
        extent: Extent = whole.storage.where
        part = extent._replace(offset=extent.offset + offset * itemsize, nbytes=numel * itemsize)
        storage = self._source.storage(_key(key), part.nbytes, part, whole.storage.location)
        found[_key(key)] = TypedStorage(storage, whole.dtype, numel)

    def tensors(self, extract: TarMember, storages: dict[str, TypedStorage]) -> dict[str, Leaf]:
        """Return the tensors by key."""
        found: dict[str, Leaf] = {}
        count, at = self.count(extract.offset, "tensors")
        for _ in range(count):
            (key, storage_key, _), at = self.fields(at, "tensors", 3)
            # Four of the eight bytes are the number of dimensions; the others are unused.
            (dimensions,) = self.integers(at, "tensors", 1, width=4)
            key = _key(key)
            storage = storages.get(_key(storage_key))
            if storage is None or storage.dtype is None or not 0 <= dimensions <= self._limits.dimensions:
                raise FormatError(
                    f"tensor {shown(key)} is malformed", file=self._file.name, member="tensors", offset=at
                )
            *sizes_and_strides, offset = self.integers(at + 8, "tensors", 2 * dimensions + 1)
            sizes, strides = tuple(sizes_and_strides[:dimensions]), tuple(sizes_and_strides[dimensions:])
            try:
                spec = spec_in(storage, storage.dtype, offset, sizes, strides, self._limits)
            except FormatError as error:
                raise error.located(file=self._file.name, member=f"tensor {key}") from None
            found[key] = Leaf(spec, storage.storage)
            at += 8 + 8 * (2 * dimensions + 1)
        return found


def _key(value: object) -> str:
    """Return a key or a location, which are numbers or texts, as text."""
    if type(value) is str:
        return value
    if type(value) is not int or value.bit_length() > 128:
        raise FormatError(f"a key must be an integer, not {shown(value)}")
    return str(value)


def _dtype(kind: Any) -> Any:
    if isinstance(kind, Opaque) and kind.args is None:
        try:
            return storage_dtype(kind.module, kind.name)
        except KeyError:
            pass
    raise FormatError("the type of a storage is not a storage type", member="storages")
