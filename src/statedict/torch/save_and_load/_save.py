"""torch.save, with this library's writer: PyTorch's signature, files, options and errors.

One difference: the object is pickled before the target is opened, so an object that cannot be saved leaves an existing file
unchanged. `statedict.save` also replaces files atomically, and saves a view as its own elements.
"""

from __future__ import annotations

import pickle
from types import ModuleType
from typing import Any

import torch

from ._save_archive import save_archive
from ._save_legacy import save_legacy
from ._saved_files import check_dill, check_writable, path_of


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
        save_archive(obj, target, module, pickle_protocol, byteorder=not _disable_byteorder_record)
    elif torch.serialization._serialization_tls.skip_data:
        raise RuntimeError("Cannot use skip_data=True with _use_new_zipfile_serialization=False")
    else:
        save_legacy(obj, target, module, pickle_protocol)
