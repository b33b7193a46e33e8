"""torch.save, with this library's writer: PyTorch's signature, files, options and errors.

One difference: the object is pickled before the target is opened, so an object that cannot be saved leaves an existing file
unchanged. `statedict.save` also replaces files atomically, and saves a view as its own elements.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch.utils.serialization import config

from statedict import files
from statedict.formats.torch_archive import Record, TensorRun, archive_parts
from statedict.state import Table, collector_paused

from ._save_legacy import save_legacy
from ._save_pickle import Numbered, pickled, storage_views
from ._saved_files import check_dill, check_writable, is_path, path_of, written

# Zeros, written repeatedly for skipped storages.
NOTHING = memoryview(bytes(1 << 20))


def save(
    obj: object,
    f: Any,
    pickle_module: Any = pickle,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Save `obj` to `f`, a path or an object with `write` and `flush`, as `torch.save` does. Partner of `load`.

    Storages are written completely, each once: tensors that share memory share it after loading, and a slice brings its
    whole tensor along. `pickle_module` provides a `Pickler` that supports `persistent_id`; `pickle_protocol` is its
    protocol. `_use_new_zipfile_serialization=False` writes the format used before PyTorch 1.6.

    Follows `torch.serialization.skip_data`, `register_package` and `torch.utils.serialization.config.save`. Raises
    RuntimeError if one memory would be saved with two dtypes or `f` cannot be opened, and any error of pickling.

    >>> import io, torch
    >>> file = io.BytesIO()
    >>> save({"weight": torch.ones(2)}, file)
    >>> _ = file.seek(0)
    >>> torch.load(file)
    {'weight': tensor([1., 1.])}
    """
    torch._C._log_api_usage_once("torch.save")
    module: ModuleType = pickle_module
    check_dill(module)
    check_writable(f, new=_use_new_zipfile_serialization)
    target = path_of(f)
    if _use_new_zipfile_serialization:
        _save_archive(obj, target, module, pickle_protocol, byteorder=not _disable_byteorder_record)
    elif torch.serialization._serialization_tls.skip_data:
        raise RuntimeError("Cannot use skip_data=True with _use_new_zipfile_serialization=False")
    else:
        save_legacy(obj, target, module, pickle_protocol)


def _save_archive(obj: object, target: Any, module: ModuleType, protocol: int, *, byteorder: bool) -> None:
    """Write `obj` as a zip archive, directly from the memory of the storages."""
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


def _skipped(storage: torch.UntypedStorage) -> Iterator[memoryview]:
    """Zeros in the size of the storage, to be filled in later by other code."""
    left = storage.nbytes()
    while left:
        yield NOTHING[:left]
        left -= min(left, len(NOTHING))
