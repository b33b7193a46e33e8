"""Persistent ids, with which a pickle refers to storages outside of it.

torch's are tuples `("storage", type, key, location, numel)`, with a sixth field for views in legacy files; `("module",
class, …)` in legacy files is the class of a module, together with its source code.
"""

from __future__ import annotations

from typing import Any, NoReturn

from statedict.errors import FormatError
from statedict.state import Opaque

from .._names import storage_dtype
from .._values import StorageId
from ._machine import Machine


def identify(m: Machine, pid: Any) -> Any:
    """Return the value for a persistent id."""
    if type(pid) is tuple and pid and type(pid[0]) is str:
        if pid[0] == "storage":
            return m.storage(storage_id(pid))
        if pid[0] == "module" and len(pid) == 4 and type(pid[1]) is Opaque and pid[1].args is None:
            return pid[1]
    if m.persistent is None:
        raise FormatError("a persistent id does not identify a storage")
    return m.persistent(pid)


def storage_id(pid: tuple[Any, ...]) -> StorageId:
    """Return the id with the type of every field checked; the sizes are not yet compared with the file."""
    if len(pid) not in (5, 6):
        _refuse(f"it has {len(pid)} fields, not 5")
    _, kind, key, location, numel = pid[:5]
    if type(kind) is not Opaque or kind.args is not None:
        _refuse("its type is not a storage type")
    try:
        dtype = storage_dtype(kind.module, kind.name)
    except KeyError:
        _refuse(f"its type {kind.path} is not a storage type")
    if type(key) is not str or not 0 < len(key) <= 256 or not key.isprintable():
        # Early legacy files use the address, an integer, as the key.
        key = str(key) if type(key) is int and key.bit_length() <= 128 else _refuse("its key is not a string")
    if type(location) is not str:
        _refuse("its location is not a string")
    if type(numel) is not int or not 0 <= numel < 1 << 63:
        _refuse("its number of elements is not a non-negative integer")
    return StorageId(dtype, key, location, numel, _view(pid[5]) if len(pid) == 6 else None)


def _view(view: Any) -> tuple[str, int, int] | None:
    if view is None:
        return None
    if type(view) is not tuple or len(view) != 3 or type(view[0]) not in (str, int) or view[0].__sizeof__() > 1024:
        _refuse("its view is not (key, offset, size)")
    key, offset, size = view
    if type(offset) is not int or type(size) is not int or offset < 0 or size < 0:
        _refuse("the offset or size of its view is not a non-negative integer")
    return str(key)[:256], offset, size


def _refuse(why: str) -> NoReturn:
    raise FormatError(f"the persistent id of a storage is malformed: {why}")
