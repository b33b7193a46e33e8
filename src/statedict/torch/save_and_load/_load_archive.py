"""Load the zip archives that torch.save writes since 1.6. Each storage is read when the pickle first refers to it."""

from __future__ import annotations

import io
import mmap
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.serialization import LoadEndianness, get_default_load_endianness, get_default_mmap_options

from statedict import files
from statedict.errors import BoundsError, FormatError, UnknownNameError
from statedict.files import Span
from statedict.formats.torch_archive import Archive, Member, member_bytes, open_zip, read_member, top_folder

from ..tensors._storages import bytes_of, has_memory, mapped_storage, new_storage, slice_of, sparse_validated, typed
from ._load_locations import MapLocation, announced, is_meta, restorer
from ._load_plain import NOT_PLAIN, is_here, load_plain
from ._load_policy import UNSAFE
from ._load_unpicklers import UnpicklerChoice, as_text
from ._saved_files import is_path

PICKLE = "data.pkl"
STORED = 0


def load_archive(source: Any, stream: Any, where: MapLocation, reading: UnpicklerChoice, *, mapped: bool) -> Any:
    """Load the object in an archive. `source`: its path or file object; `stream`: the same as an open file, at its start."""
    start = stream.tell()
    with translated():
        file = files.open(source)
        try:
            archive = open_zip(file, trailing=True)
            folder = top_folder(archive)
            if f"{folder}constants.pkl" in archive.members:
                return _load_script(stream, start, where, reading)
            swapped = is_swapped(archive, folder)
            whole = _mapped(source, file.size) if mapped else None
            content = read_member(archive, folder + PICKLE)
            if not swapped and not mapped and reading.is_usual and is_here(where):
                plain = load_plain(archive, f"{folder}data/", content)
                if plain is not NOT_PLAIN:
                    return plain
            storages = LoadedStorages(archive, f"{folder}data/", where, swapped, whole)
            with announced(where), sparse_validated():
                return reading.read_object(io.BytesIO(content), storages.identify)
        finally:
            file.close()


@contextmanager
def translated() -> Iterator[None]:
    """Translate the errors of our reader into those that PyTorch's reader raises."""
    try:
        yield
    except UnknownNameError as error:
        name = error.name.partition("/")[2]
        raise RuntimeError(f"PytorchStreamReader failed locating file {name}: file not found. {error}") from error
    except BoundsError as error:
        raise RuntimeError(f"Trying to resize storage that is not resizable. {error}") from error
    except FormatError as error:
        raise RuntimeError(f"PytorchStreamReader failed reading zip archive: {error}") from error


def is_swapped(archive: Archive, folder: str) -> bool:
    """Return whether the storages have another byte order than this machine, which is little-endian."""
    if f"{folder}byteorder" in archive.members:
        order = read_member(archive, f"{folder}byteorder")
        if order not in (b"little", b"big"):
            raise ValueError(f"Unknown endianness type: {order.decode('utf-8', 'replace')}")
        return order == b"big"
    default = get_default_load_endianness()
    if default is not None and not isinstance(default, LoadEndianness):
        raise ValueError("Invalid load endianness type")
    return default is LoadEndianness.BIG


def _mapped(source: Any, nbytes: int) -> torch.UntypedStorage:
    if not is_path(source):
        raise ValueError("f must be a file path in order to use the mmap argument")
    shared = get_default_mmap_options() == getattr(mmap, "MAP_SHARED", None)  # PyTorch too has None on Windows
    return mapped_storage(os.fspath(source), nbytes, shared=shared)


def _load_script(stream: Any, start: int, where: MapLocation, reading: UnpicklerChoice) -> Any:
    warnings.warn(
        "'torch.load' received a zip file that looks like a TorchScript archive"
        " dispatching to 'torch.jit.load' (call 'torch.jit.load' directly to"
        " silence this warning)",
        UserWarning,
        stacklevel=4,
    )
    if reading.module is None:
        raise RuntimeError(
            f"Cannot use ``weights_only=True`` with TorchScript archives passed to ``torch.load``. {UNSAFE}"
        )
    stream.seek(start)
    return torch.jit.load(stream, map_location=where)  # type: ignore[no-untyped-call]


@dataclass(slots=True, eq=False)
class LoadedStorages:
    """Storages by their keys in the pickle; the members are named `prefix` + key.

    `swapped`: their elements have the other byte order. `whole`: the mapped file, of which the storages become slices.
    """

    archive: Archive
    prefix: str
    where: MapLocation
    swapped: bool
    whole: torch.UntypedStorage | None
    found: dict[Any, Any] = field(default_factory=dict)

    def identify(self, saved: Any) -> Any:
        """Resolve the persistent id of a storage."""
        if not isinstance(saved, tuple):
            raise AssertionError(f"saved_id must be a tuple, got {type(saved).__name__}")
        word = as_text(saved[0])
        if word != "storage":
            raise AssertionError(f"Unknown typename for persistent_load, expected 'storage' but got '{word}'")
        kind, key, location, numel = saved[1:]
        if key in self.found:
            return self.found[key]
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        storage = self._placed(key, numel * dtype.itemsize, dtype, as_text(location))
        made = typed(storage, dtype)
        # As in PyTorch, storages without memory are not shared: each reference gets its own.
        if has_memory(made):
            self.found[key] = made
        return made

    def _placed(self, key: Any, nbytes: int, dtype: torch.dtype, location: str) -> Any:
        fake = torch._guards.detect_fake_mode(None) is not None
        if fake or is_meta(self.where):
            storage = new_storage(nbytes, "meta")
            storage._checkpoint_offset = self._member(key).offset
            if fake and not is_meta(self.where):
                storage._fake_device = location  # type: ignore[assignment]
            return storage
        if torch.serialization._serialization_tls.skip_data:
            storage = new_storage(nbytes)
        else:
            storage = self._read(self._member(key), nbytes)
        if self.swapped:
            storage.byteswap(dtype)  # type: ignore[no-untyped-call]
        return restorer(self.where)(storage, location)

    def _member(self, key: Any) -> Member:
        name = f"{self.prefix}{key}"
        if name not in self.archive.members:
            raise UnknownNameError(name, among=f"the archive {self.archive.file.name}")
        return self.archive.members[name]

    def _read(self, member: Member, nbytes: int) -> torch.UntypedStorage:
        if member.nbytes != nbytes:
            raise RuntimeError(
                f"record size ({member.nbytes} bytes) does not match expected size ({nbytes} bytes) of {member.name}"
            )
        if self.whole is not None:
            if member.method != STORED:
                raise RuntimeError(
                    f"{member.name} is compressed in the file, so it cannot be mapped: load the file without mmap"
                )
            return slice_of(self.whole, member.offset, nbytes)
        storage = new_storage(nbytes)
        if member.method == STORED:
            self.archive.file.read_into([Span(member.offset, bytes_of(storage))])
        else:
            bytes_of(storage)[:] = member_bytes(self.archive, member)
        return storage
