"""Write objects in the format that torch.save wrote before 1.6: five consecutive pickles, then the storages' bytes."""

from __future__ import annotations

import sys
import warnings
from inspect import getsource, getsourcefile
from types import ModuleType
from typing import Any

import torch
from torch.serialization import location_tag

from ._save_pickle import OneDtype, storage_views, take
from ._saved_files import written

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
MACHINE = {
    "protocol_version": VERSION,
    "little_endian": sys.byteorder == "little",
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def save_legacy(obj: object, target: Any, module: ModuleType, protocol: int) -> None:
    """Write `obj` to a path or file object."""
    identities = _Identities()

    class LegacyPickler(module.Pickler):  # type: ignore[name-defined, misc]
        def persistent_id(self, obj: Any) -> Any:
            return identities.identify(obj)

    with written(target) as file:
        for fact in (MAGIC, VERSION, MACHINE):
            module.dump(fact, file, protocol=protocol)
        pickler = LegacyPickler(file, protocol=protocol)
        pickler.dump(obj)
        found = sorted(identities.found.items())
        module.dump([key for key, _ in found], file, protocol=protocol)
        file.flush()
        for _, (storage, itemsize) in found:
            file.write((storage.nbytes() // itemsize).to_bytes(8, "little"))
            for view in storage_views(storage):
                _write(file, view)


def _write(file: Any, view: memoryview) -> None:
    while view:
        done = file.write(view[: 1 << 26])
        view = view[done if isinstance(done, int) else 1 << 26 :]


class _Identities:
    """Assigns persistent ids; `found` maps the key of each storage to the storage and its element size."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[torch.UntypedStorage, int]] = {}
        self._classes: set[type] = set()
        self._dtypes = OneDtype()

    def identify(self, obj: Any) -> tuple[Any, ...] | None:
        """The persistent id of a storage or (the first time) of a module's class; None for other objects."""
        if isinstance(obj, type) and issubclass(obj, torch.nn.Module):
            return self._class(obj)
        taken = take(obj)
        if taken is None:
            return None
        self._dtypes.check(taken.storage, taken.dtype)
        key = str(taken.storage._cdata)
        self.found.setdefault(key, (taken.storage, taken.dtype.itemsize))
        # The last field describes views of other storages, which no longer exist.
        return "storage", taken.kind, key, location_tag(taken.storage), taken.numel, None

    def _class(self, kind: type) -> tuple[Any, ...] | None:
        if kind in self._classes:
            return None
        self._classes.add(kind)
        try:
            return "module", kind, getsourcefile(kind), getsource(kind)
        except (OSError, TypeError):
            warnings.warn(
                f"Couldn't retrieve source code for container of type {kind.__name__}. It won't be checked for "
                "correctness upon loading.",
                stacklevel=5,
            )
            return "module", kind, None, None
