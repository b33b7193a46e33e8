"""Write objects as the zip archives that torch.save writes since 1.6, directly from the storages' memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch.utils.serialization import config

from statedict import files
from statedict.formats.torch_archive import Record, TensorRun, archive_parts
from statedict.state import Table, collector_paused

from ..tensors._storages import bytes_of, kept_bytes_of
from ._save_pickle import pickled
from ._saved_files import is_path, written
from ._saved_storages import Numbered

# Zeros, written repeatedly for skipped storages.
NOTHING = memoryview(bytes(1 << 20))


def save_archive(obj: object, target: Any, module: ModuleType, protocol: int, *, byteorder: bool) -> None:
    """Write `obj` to a path or file object."""
    folder = _folder(target)
    content, storages = pickled(obj, module, protocol)
    records = list(_records(f"{folder}/data/", storages))
    parts = archive_parts(
        content,
        records,
        folder=f"{folder}/",
        late_byteorder=not byteorder,
        alignment=config.save.storage_alignment,
        checked=config.save.compute_crc32,
    )
    try:
        with written(target) as file, collector_paused():
            files.write(file, parts)
    except OSError as error:
        # For paths that it opens itself, PyTorch's writer raises only RuntimeError.
        if not is_path(target) or error.filename is None:
            raise
        raise RuntimeError(_refusal(target, error)) from error


def _records(folder: str, storages: Numbered) -> Iterator[Record | TensorRun]:
    views = _skipped if torch.serialization._serialization_tls.skip_data else storage_views
    number = 0
    for storage in storages.found:
        if isinstance(storage, Table):
            rows = range(number, number + len(storage))
            yield TensorRun([f"{folder}{row}" for row in rows], storage)
            number = rows.stop
        else:
            yield Record(f"{folder}{number}", storage.nbytes(), partial(views, storage))
            number += 1


def _folder(target: Any) -> str:
    """The name of the folder inside the archive: the file's name without its suffix."""
    if not is_path(target) or not os.fsencode(target).isascii():
        return "archive"
    name = os.path.basename(os.fsdecode(target))
    stem = name.rpartition(".")[0] if "." in name else name
    if not stem:
        raise RuntimeError(f"invalid file name: {os.fsdecode(target)}")
    return stem


def _refusal(target: Any, error: OSError) -> str:
    parent = os.path.dirname(os.fsdecode(target))
    if parent and not os.path.isdir(parent):
        return f"Parent directory {parent} does not exist."
    return f"{os.fsdecode(target)}: open file failed with strerror: {error.strerror}"


def storage_views(storage: torch.UntypedStorage) -> Iterator[memoryview]:
    """The bytes of a storage; those of other devices are copied to the CPU for as long as they are written."""
    if not storage.nbytes():
        return
    # The object that is saved keeps its own storages alive; a copy must be kept alive by its view.
    yield bytes_of(storage) if storage.device.type == "cpu" else kept_bytes_of(_fetched(storage))


def _fetched(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if not config.save.use_pinned_memory_for_d2h or accelerator is None or accelerator.type != storage.device.type:
        here: torch.UntypedStorage = storage.cpu()  # type: ignore[no-untyped-call]
        return here
    pinned = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cpu", pin_memory=True).untyped_storage()
    pinned.copy_(storage)
    torch.accelerator.current_stream(storage.device.index).synchronize()
    return pinned


def _skipped(storage: torch.UntypedStorage) -> Iterator[memoryview]:
    """Zeros in the size of the storage, to be filled in later by other code."""
    left = storage.nbytes()
    while left:
        yield NOTHING[:left]
        left -= min(left, len(NOTHING))
