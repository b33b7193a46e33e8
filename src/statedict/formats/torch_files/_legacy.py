"""Read files of torch.save before 1.6: five consecutive pickles, then the bytes of the storages.

Theory of operation. The pickles are a magic number, a version, system information, the object, and the keys of its
storages in the order in which they follow. Each storage is its number of elements (8 bytes) and its elements, always
little-endian. A storage in the object may be a view: part of another one, which alone is in the file. There are no
checksums. The object is read before the offsets of its storages are known, so storages are first claimed, then located:
the claimed keys and the listed keys must be the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from statedict import files
from statedict.files import File, fetch
from statedict.state import Storage

from ...errors import FormatError, TruncatedError
from .._limits import LIMITS, Limits
from .._pickle import Import, Parsed, StorageId, TypedStorage
from ..checkpoint._checkpoint import Checkpoint
from ..checkpoint._walk import leaves
from ..storages._describe import shown
from ..storages._extent import Extent
from ..storages._file_source import FileSource
from ._stacked_pickles import Stacked, parse_at

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
UNKNOWN = Extent(0, 0, "")
# A storage alone takes some 50 opcodes.
NESTED_OPERATIONS = 1_000
UNCHECKED = "the file has no checksums: damage to its tensors cannot be detected"


def read_torch_legacy(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint in a file that torch.save wrote before 1.6, or with `_use_new_zipfile_serialization=False`."""
    magic = parse_at(file, 0, "the magic number", limits)
    if not is_integer(magic.parsed.value, MAGIC):
        raise FormatError("the file does not start with the magic number of torch.save", file=file.name, offset=0)
    version = parse_at(file, magic.end, "the version", limits)
    if not is_integer(version.parsed.value, VERSION):
        raise FormatError(
            f"unsupported version {shown(version.parsed.value)}; expected {VERSION}", file=file.name, offset=magic.end
        )
    facts = parse_at(file, version.end, "the system information", limits)
    storages = LegacyStorages(file)
    storages.source.expansion = limits.expansion
    content = parse_at(file, facts.end, "the object", limits, storage=storages.claim, nested=nested_reader(limits))
    keys = parse_at(file, content.end, "the storage keys", limits)
    end = storages.locate(keys.parsed.value, keys.end)
    storages.join_views(content.parsed.value)
    return Checkpoint(
        file.name,
        "torch-legacy",
        content.parsed.value,
        size=file.size,
        producer="PyTorch",
        globals=_imports([magic, version, facts, content, keys]),
        notes=[UNCHECKED, *([f"{file.size - end:,} bytes follow the last storage"] if end < file.size else [])],
        metadata={"version": str(VERSION)},
        # Like torch.load, leave a file object after the end, so that what was saved next can be loaded.
        close=partial(file.close, end),
    )


def is_integer(value: object, expected: int) -> bool:
    """Return whether the content of a pickle is that integer. An array would compare its elements."""
    return type(value) is int and value == expected


def nested_reader(limits: Limits) -> Callable[[bytes], Parsed] | None:
    """Return the reader of a legacy file nested in a pickle, the form of a storage in plain pickles; None if nesting is
    not allowed.
    """
    if limits.nested < 1:
        return None
    inside = replace(limits, nested=limits.nested - 1, operations=min(limits.operations, NESTED_OPERATIONS))

    def read(data: bytes) -> Parsed:
        found = read_torch_legacy(files.open(io.BytesIO(data)), inside)
        return Parsed(found.object, found.globals, len(data))

    return read


def _imports(pickles: list[Stacked]) -> list[Import]:
    return list(dict.fromkeys(named for stacked in pickles for named in stacked.parsed.globals))


class LegacyStorages:
    """The storages of a legacy file: claimed by the object's pickle, then located after it."""

    def __init__(self, file: File) -> None:
        self.source = FileSource(file)
        self._file = file
        self._roots: dict[str, TypedStorage] = {}
        self._views: dict[tuple[str, int, int], TypedStorage] = {}
        self._parts: dict[int, tuple[Storage, int]] = {}

    def claim(self, wanted: StorageId) -> TypedStorage:
        """Return the storage, or the view of one, that the pickle names; its offset is not known yet."""
        root = self._roots.get(wanted.key)
        itemsize = wanted.dtype.itemsize if wanted.dtype else 1
        nbytes = wanted.numel * itemsize
        if root is None:
            if nbytes > self._file.size:
                raise TruncatedError(
                    f"storage {shown(wanted.key)} has {nbytes:,} bytes according to the pickle, "
                    f"but the file has only {self._file.size:,}"
                )
            storage = self.source.storage(wanted.key, nbytes, UNKNOWN, wanted.location)
            root = self._roots[wanted.key] = TypedStorage(storage, wanted.dtype, wanted.numel)
        if nbytes > root.nbytes:
            raise FormatError(
                f"storage {shown(wanted.key)} has {nbytes:,} bytes in one place of the pickle and {root.nbytes:,} in another"
            )
        if wanted.view is None:
            return TypedStorage(root.storage, wanted.dtype, wanted.numel)
        _, offset, numel = wanted.view
        if (offset + numel) * itemsize > root.nbytes:
            raise FormatError(f"a view of storage {wanted.key!r} exceeds the storage")
        return self._view(root, wanted, offset * itemsize, numel)

    def _view(self, root: TypedStorage, wanted: StorageId, start: int, numel: int) -> TypedStorage:
        key = wanted.key, start, numel
        if key not in self._views:
            nbytes = numel * (wanted.dtype.itemsize if wanted.dtype else 1)
            part = self.source.storage(key, nbytes, UNKNOWN, wanted.location)
            self._views[key] = TypedStorage(part, wanted.dtype, numel)
            self._parts[id(part)] = root.storage, start
        return self._views[key]

    def locate(self, keys: object, start: int) -> int:
        """Locate the claimed storages from byte `start`, in the order of the keys; return where they end."""
        if type(keys) is not list or not all(type(key) in (str, int) for key in keys):
            raise FormatError("the list of storages is not a list of keys", file=self._file.name)
        if any(type(key) is int and key.bit_length() > 128 for key in keys):
            raise FormatError("the key of a storage is larger than any address", file=self._file.name)
        named = [str(key) for key in keys]
        if len(set(named)) != len(named) or set(named) != self._roots.keys():
            odd = ", ".join(map(shown, sorted(set(named) ^ self._roots.keys())[:3])) or "a key is listed twice"
            raise FormatError(f"the list of storages does not match those the object uses: {odd}", file=self._file.name)
        extents = []
        for key in named:
            extents.append((start, 8))
            start += 8 + self._roots[key].nbytes
        if start > self._file.size:
            raise TruncatedError(
                f"the file is truncated: it has {self._file.size:,} of {start:,} bytes", file=self._file.name
            )
        for key, (at, _), count in zip(named, extents, fetch(self._file, extents)):
            root = self._roots[key]
            found = int.from_bytes(count, "little", signed=True)
            if found != root.numel:
                raise FormatError(
                    f"it should have {root.numel:,} elements, but its header says {found:,}",
                    file=self._file.name,
                    member=f"storage {key}",
                    offset=at,
                )
            itemsize = root.dtype.itemsize if root.dtype else 1
            root.storage.where = Extent(at + 8, root.nbytes, f"storage {key}", None, itemsize)
        for view in self._views.values():
            self._place(view)
        return start

    def _place(self, view: TypedStorage) -> None:
        root, start = self._parts[id(view.storage)]
        extent: Extent = root.where
        view.storage.where = extent._replace(offset=extent.offset + start, nbytes=view.nbytes)

    def join_views(self, tree: object) -> None:
        """Let leaves of views of one storage share it, as when they were saved."""
        for _, leaf in leaves(tree):
            root, start = self._parts.get(id(leaf.storage), (None, 0))
            if root is not None and start % leaf.spec.dtype.itemsize == 0:
                spec = leaf.spec._replace(offset=leaf.spec.offset + start // leaf.spec.dtype.itemsize)
                leaf.become(spec, root, leaf.traits)
