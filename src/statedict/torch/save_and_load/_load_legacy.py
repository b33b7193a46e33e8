"""Load the formats that torch.save wrote before 1.6: consecutive pickles followed by the storages' bytes, and tars.

Storages are created when the object's pickle refers to them, and filled after it, in the order of their keys.
"""

from __future__ import annotations

import io
import warnings
from inspect import getsource
from typing import Any

import torch
from torch.serialization import SourceChangeWarning

from statedict import files
from statedict.formats.torch_archive import read_tar_tensors
from statedict.state import library, materialize

from ..tensors._storages import bytes_of, empty_typed, has_memory, new_storage, slice_of, sparse_validated, typed
from ._load_archive import translated
from ._load_locations import MapLocation, restorer
from ._load_policy import UNSAFE
from ._load_unpicklers import UnpicklerChoice, as_text
from ._save_legacy import MAGIC, VERSION

# The offset of the magic bytes of a tar file.
USTAR = 257


def load_legacy(file: Any, where: MapLocation, reading: UnpicklerChoice) -> Any:
    """Load the object from a file object, starting at its current position."""
    if _is_tar(file):
        return _load_tar(file, where, reading)
    if reading.read(file) != MAGIC:
        raise RuntimeError("Invalid magic number; corrupt file?")
    version = reading.read(file)
    if version != VERSION:
        raise RuntimeError(f"Invalid protocol version: {version}")
    reading.read(file)
    storages = _Storages(where)
    with sparse_validated():
        loaded = reading.read_object(file, storages.identify, moved={})
        keys = reading.read(file)
        if torch._guards.active_fake_mode() is None and not torch.serialization._serialization_tls.skip_data:
            storages.fill_all(keys, file)
    return loaded


class _Storages:
    """The storages by their keys, including views."""

    def __init__(self, where: MapLocation) -> None:
        self._restore = restorer(where)
        self._found: dict[Any, Any] = {}
        # The keys of views, whose bytes belong to the viewed storage.
        self._parts: set[Any] = set()

    def identify(self, saved: Any) -> Any:
        """Resolve a persistent id: a storage, or the class of a module, whose source code is compared."""
        if not isinstance(saved, tuple):
            raise AssertionError(f"saved_id must be a tuple, got {type(saved).__name__}")
        word = as_text(saved[0])
        if word == "module":
            return checked_class(*saved[1:])
        if word != "storage":
            raise RuntimeError(f"Unknown saved id type: {saved[0]}")
        kind, key, location, numel, view = saved[1:]
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        found = self._found.get(key)
        if found is None:
            storage = self._made(numel * dtype.itemsize, as_text(location))
            found = self._found[key] = typed(storage, dtype)
        elif not has_memory(found):
            found = empty_typed(found._untyped_storage.device, dtype)
        return found if view is None else self._view(found, dtype, *view)

    def _made(self, nbytes: int, location: str) -> Any:
        if torch._guards.active_fake_mode() is not None:
            return new_storage(nbytes, "meta")
        storage = new_storage(nbytes)
        if not torch.serialization._serialization_tls.skip_data:
            # Backends that support this flag allocate memory without copying.
            storage._torch_load_uninitialized = True  # type: ignore[attr-defined]
        return self._restore(storage, location)

    def _view(self, whole: Any, dtype: torch.dtype, key: Any, offset: int, numel: int) -> Any:
        if key not in self._found:
            part = slice_of(whole._untyped_storage, offset * dtype.itemsize, numel * dtype.itemsize)
            self._found[key] = typed(part, dtype)
            self._parts.add(key)
        return self._found[key]

    def fill_all(self, keys: Any, file: Any) -> None:
        """Read the storages with these keys, which follow in the file; raises RuntimeError if any other has no data."""
        missing = {
            key for key, found in self._found.items() if key not in self._parts and found._untyped_storage.nbytes()
        }
        for key in keys:
            self._fill(key, file)
            missing.discard(key)
        if missing:
            some = ", ".join(sorted(map(repr, missing))[:5])
            raise RuntimeError(
                f"the file has no data for {len(missing)} of its storages ({some}). It might be corrupted."
            )

    def _fill(self, key: Any, file: Any) -> None:
        """Read the storage's length and its bytes, which come next in the file."""
        if key not in self._found:
            raise AssertionError(f"storage key {key!r} not found in deserialized_objects")
        found = self._found[key]
        storage: torch.UntypedStorage = found._untyped_storage
        header = bytearray(8)
        _read_into(file, memoryview(header))
        nbytes = int.from_bytes(header, "little", signed=True) * found.dtype.itemsize
        if nbytes != storage.nbytes():
            raise RuntimeError(f"storage has wrong byte size: expected {storage.nbytes()} got {nbytes}")
        if storage.device.type == "cpu":
            _read_into(file, bytes_of(storage))
            return
        here = new_storage(nbytes)
        _read_into(file, bytes_of(here))
        if storage.device.type != "meta":
            storage.copy_(here)


def _read_into(file: Any, into: memoryview) -> None:
    expected = len(into)
    while into:
        if hasattr(file, "readinto"):
            got = file.readinto(into)
        else:
            part = file.read(len(into))
            got = len(part)
            into[:got] = part
        if not got:
            raise RuntimeError(
                f"unexpected EOF, expected {len(into)} more bytes of {expected}. The file might be corrupted."
            )
        into = into[got:]


def checked_class(kind: Any, file: Any = None, source: Any = None) -> Any:
    """Return the class of a module that was saved with its source; warns (SourceChangeWarning) if the source has changed."""
    if not file or not source:
        return kind
    try:
        now = getsource(kind)
    except (OSError, TypeError):
        warnings.warn(
            f"Couldn't retrieve source code for container of type {kind.__name__}. It won't be checked for correctness "
            "upon loading.",
            stacklevel=6,
        )
        return kind
    if now != source:
        warnings.warn(
            f"source code of class '{torch.typename(kind)}' has changed. you can retrieve the original source code by "
            "accessing the object's source attribute or set `torch.nn.Module.dump_patches = True` and use the patch tool "
            "to revert the changes.",
            SourceChangeWarning,
            stacklevel=6,
        )
    return kind


# tars


def _is_tar(file: Any) -> bool:
    start = file.tell()
    head = file.read(USTAR + 5)
    file.seek(start)
    return bool(head[USTAR:] == b"ustar")


def _load_tar(file: Any, where: MapLocation, reading: UnpicklerChoice) -> Any:
    """Load the object in a tar. Its tensors are made first; the object's pickle refers to them by key."""
    if reading.module is None:
        raise RuntimeError(f"Cannot use ``weights_only=True`` with files saved in the legacy .tar format. {UNSAFE}")
    with translated():
        leaves, content = read_tar_tensors(files.open(file))
        made = materialize(list(leaves.values()), library("torch"))
    tensors = dict(zip(leaves, _restored(made, [leaf.storage.location for leaf in leaves.values()], where)))

    def identify(saved: Any) -> Any:
        return checked_class(*saved) if isinstance(saved, tuple) else tensors[str(int(saved))]

    return reading.read_object(io.BytesIO(content), identify, moved={})


def _restored(tensors: list[torch.Tensor], locations: list[str], where: MapLocation) -> list[torch.Tensor]:
    restore = restorer(where)
    moved: dict[int, Any] = {}
    placed = []
    for tensor, location in zip(tensors, locations):
        storage = tensor.untyped_storage()
        if storage._cdata not in moved:
            moved[storage._cdata] = restore(storage, location)
        here = torch.empty(0, dtype=tensor.dtype, device=moved[storage._cdata].device)
        placed.append(here.set_(moved[storage._cdata], tensor.storage_offset(), tensor.shape, tensor.stride()))
    return placed
