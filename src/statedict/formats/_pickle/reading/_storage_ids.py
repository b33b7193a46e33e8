"""Persistent ids: how a pickle names the storages that lie beside it.

torch's are tuples `("storage", type, key, location, numel)`, with a sixth field for views in legacy files; `("module",
class, …)` in legacy files is the class of a module, with its source code beside it.
"""

from __future__ import annotations

from typing import Any, NoReturn

from statedict.errors import FormatError
from statedict.state import Opaque

from .._names import storage_dtype
from .._values import StorageId
from ._machine import Machine


def identify(m: Machine, pid: Any) -> Any:
    """The value that a persistent id stands for."""
    if type(pid) is tuple and pid and type(pid[0]) is str:
        if pid[0] == "storage":
            return m.storage(storage_id(pid))
        if pid[0] == "module" and len(pid) == 4 and type(pid[1]) is Opaque and pid[1].args is None:
            return pid[1]
    if m.persistent is None:
        raise FormatError("a persistent id that is no storage's")
    return m.persistent(pid)


def storage_id(pid: tuple[Any, ...]) -> StorageId:
    """The id with every field checked; the claims in it are not."""
    if len(pid) not in (5, 6):
        _refuse(f"it has {len(pid)} fields, not 5")
    _, kind, key, location, numel = pid[:5]
    if type(kind) is not Opaque or kind.args is not None:
        _refuse("its type is no storage type")
    try:
        dtype = storage_dtype(kind.module, kind.name)
    except KeyError:
        _refuse(f"its type {kind.path} is no storage type")
    if type(key) is not str or not 0 < len(key) <= 256 or not key.isprintable():
        # Early legacy files used the address as an integer key.
        key = str(key) if type(key) is int and key.bit_length() <= 128 else _refuse("its key is not a string")
    if type(location) is not str:
        _refuse("its location is not a string")
    if type(numel) is not int or not 0 <= numel < 1 << 63:
        _refuse("its number of elements is no count")
    return StorageId(dtype, key, location, numel, _view(pid[5]) if len(pid) == 6 else None)


def _view(view: Any) -> tuple[str, int, int] | None:
    if view is None:
        return None
    if type(view) is not tuple or len(view) != 3 or type(view[0]) not in (str, int) or view[0].__sizeof__() > 1024:
        _refuse("its view is not (key, offset, size)")
    key, offset, size = view
    if type(offset) is not int or type(size) is not int or offset < 0 or size < 0:
        _refuse("its view has an offset or size that is no count")
    return str(key)[:256], offset, size


def _refuse(why: str) -> NoReturn:
    raise FormatError(f"a storage's persistent id is malformed: {why}")
