"""Load the zip archives that torch.save writes since 1.6: storages are read when the pickle refers to them."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import MAP_SHARED
from typing import Any

import torch
from torch.serialization import LoadEndianness, get_default_load_endianness, get_default_mmap_options

from statedict import files
from statedict.errors import BoundsError, FormatError, UnknownNameError
from statedict.formats.torch_archive import Archive, open_zip, read_member, top_folder

from ..tensors._storages import mapped_storage, sparse_validated
from ._load_locations import MapLocation, announced
from ._load_plain import NOT_PLAIN, is_here, load_plain
from ._load_policy import UNSAFE
from ._load_storages import LoadedStorages
from ._load_unpicklers import UnpicklerChoice
from ._saved_files import is_path

PICKLE = "data.pkl"


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
            storages = LoadedStorages(archive, f"{folder}data/", where, swapped=swapped, whole=whole)
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
    """Whether the storages have another byte order than this machine, which is little-endian."""
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
    shared = get_default_mmap_options() == MAP_SHARED
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
