"""The storages of an archive as torch storages, each created when the pickle first refers to it."""

from __future__ import annotations

from typing import Any

import torch

from statedict.errors import UnknownNameError
from statedict.files import Span
from statedict.formats.torch_archive import Archive, Member, member_bytes

from ..tensors._storages import bytes_of, has_memory, new_storage, slice_of, typed
from ._load_locations import MapLocation, is_meta, restorer
from ._load_restricted import as_text

STORED = 0


class LoadedStorages:
    """Storages by their keys in the pickle; the members are named `prefix` + key.

    `swapped`: their elements have the other byte order. `whole`: the mapped file, of which the storages become slices.
    """

    def __init__(
        self,
        archive: Archive,
        prefix: str,
        where: MapLocation,
        *,
        swapped: bool,
        whole: torch.UntypedStorage | None,
    ) -> None:
        self._archive = archive
        self._prefix = prefix
        self._restore = restorer(where)
        self._meta = is_meta(where)
        self._swapped = swapped
        self._whole = whole
        self._found: dict[Any, Any] = {}

    def identify(self, saved: Any) -> Any:
        """Resolve the persistent id of a storage."""
        if not isinstance(saved, tuple):
            raise AssertionError(f"saved_id must be a tuple, got {type(saved).__name__}")
        word = as_text(saved[0])
        if word != "storage":
            raise AssertionError(f"Unknown typename for persistent_load, expected 'storage' but got '{word}'")
        kind, key, location, numel = saved[1:]
        if key in self._found:
            return self._found[key]
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        storage = self._placed(key, numel * dtype.itemsize, dtype, as_text(location))
        made = typed(storage, dtype)
        # As in PyTorch, storages without memory are not shared: each reference gets its own.
        if has_memory(made):
            self._found[key] = made
        return made

    def _placed(self, key: Any, nbytes: int, dtype: torch.dtype, location: str) -> Any:
        fake = torch._guards.detect_fake_mode(None) is not None
        if fake or self._meta:
            storage = new_storage(nbytes, "meta")
            storage._checkpoint_offset = self._member(key).offset
            if fake and not self._meta:
                storage._fake_device = location  # type: ignore[assignment]
            return storage
        if torch.serialization._serialization_tls.skip_data:
            storage = new_storage(nbytes)
        else:
            storage = self._read(self._member(key), nbytes)
        if self._swapped:
            storage.byteswap(dtype)  # type: ignore[no-untyped-call]
        return self._restore(storage, location)

    def _member(self, key: Any) -> Member:
        name = f"{self._prefix}{key}"
        if name not in self._archive.members:
            raise UnknownNameError(name, among=f"the archive {self._archive.file.name}")
        return self._archive.members[name]

    def _read(self, member: Member, nbytes: int) -> torch.UntypedStorage:
        if member.nbytes != nbytes:
            raise RuntimeError(
                f"record size ({member.nbytes} bytes) does not match expected size ({nbytes} bytes) of {member.name}"
            )
        if self._whole is not None:
            if member.method != STORED:
                raise RuntimeError(
                    f"{member.name} is compressed in the file, so it cannot be mapped: load the file without mmap"
                )
            return slice_of(self._whole, member.offset, nbytes)
        storage = new_storage(nbytes)
        if member.method == STORED:
            self._archive.file.read_into([Span(member.offset, bytes_of(storage))])
        else:
            bytes_of(storage)[:] = member_bytes(self._archive, member)
        return storage
