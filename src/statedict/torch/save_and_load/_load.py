"""torch.load, with this library's readers: PyTorch's signature, results, options and errors."""

from __future__ import annotations

import os
import pickle
import warnings
from typing import Any

import torch
from torch.utils.serialization import config

from statedict import formats
from statedict.state import library, materialize

from ._load_archive import load_archive
from ._load_legacy import load_legacy
from ._load_locations import MapLocation
from ._load_policy import explained, only_weights
from ._load_unpicklers import UnpicklerChoice
from ._saved_files import check_dill, is_path, opened

ZIP = b"PK\3\4"


def load(
    f: Any,
    map_location: MapLocation = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Load what `torch.save` wrote to `f`, a path or a seekable binary file object, as `torch.load` does. Partner of `save`.

    With `weights_only` (the default) a file can call only what PyTorch allows, and what the caller allowed with
    `torch.serialization.add_safe_globals`. **`weights_only=False` runs any code that the file names**: PyTorch's contract
    requires that, and only this function of the library does it; `statedict.load` never does.

    `map_location`: None (each storage returns to its saved location), a device, a mapping of saved location to device, or a
    function of (storage, location) that returns the storage to use, or None. `mmap`: map the file instead of reading it.
    `pickle_module` provides an `Unpickler`, which gets `pickle_load_args`; both need `weights_only=False`.

    Raises pickle.UnpicklingError if the file contains what is not allowed, RuntimeError if it is damaged, EOFError if it is
    empty, and any error of unpickling.

    >>> import io, torch
    >>> file = io.BytesIO()
    >>> torch.save([torch.ones(2)], file)
    >>> _ = file.seek(0)
    >>> load(file)
    [tensor([1., 1.])]
    """
    torch._C._log_api_usage_once("torch.load")
    restricted = only_weights(weights_only, pickle_module)
    if restricted and pickle_module is not None:
        raise RuntimeError("Can not safely load weights when explicit pickle_module is specified")
    if restricted and pickle_load_args:
        warnings.warn("pickle_load_args only works if `weights_only=False`.", stacklevel=2)
    check_dill(pickle_module)
    mapped = config.load.mmap if mmap is None else mmap
    reading = UnpicklerChoice(
        None if restricted else pickle_module or pickle, {"encoding": "utf-8", **pickle_load_args}
    )
    if is_path(f) and os.fspath(f).endswith(".safetensors"):
        return _load_safetensors(os.fspath(f), map_location)
    with opened(f) as file, explained():
        if _is_zip(file):
            return load_archive(f if is_path(f) else file, file, map_location, reading, mapped=mapped)
        if mapped:
            name = f"{f}, " if isinstance(f, str) else ""
            raise RuntimeError(
                "mmap can only be used with files saved with "
                f"`torch.save({name}_use_new_zipfile_serialization=True), "
                "please torch.save your checkpoint with this option in order to use mmap."
            )
        return load_legacy(file, map_location, reading)


def _is_zip(file: Any) -> bool:
    start = file.tell()
    head = file.read(len(ZIP))
    file.seek(start)
    return bool(head == ZIP)


def _load_safetensors(path: str, where: MapLocation) -> dict[str, Any]:
    """Load the tensors of the file by name, as safetensors' own reader does, onto the device `where`.

    Raises RuntimeError if that is a mapping or function.
    """
    if isinstance(where, dict) or callable(where):
        kind = "dict" if isinstance(where, dict) else "callable"
        raise RuntimeError(
            f"Loading safetensors file with {kind} map_location is not supported. Use a device string or torch.device "
            "instead."
        )
    device = torch.device("cpu" if where is None else str(where))
    with formats.open(path) as checkpoint:
        names, leaves = zip(*formats.tensors(checkpoint.object)) if checkpoint.object else ((), ())
        arrays = materialize(leaves, library("torch"), verify=False)
    return {name: array.to(device) for name, array in zip(names, arrays)}
