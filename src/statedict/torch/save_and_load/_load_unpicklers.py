"""The unpicklers for torch.load: by PyTorch's rules for `weights_only`, or the Unpickler of a pickle module.

By these rules a pickle holds data, and calls functions that PyTorch or the caller allows. The Unpickler of a module runs
any code that the pickle names, which is PyTorch's contract for `weights_only=False`.

*Theory of operation.* Python's own unpickler, in its Python version, is a table of opcodes. This table contains only the
opcodes that PyTorch supports (those of protocol 2): the ones that create plain data, unchanged, and guarded versions of the
ten that could do harm. A global is looked up in PyTorch's list (`torch.serialization.add_safe_globals` extends it) and never
imported; only what is on the list is called, instantiated or given a state; only lists and dicts are filled. The list itself
is PyTorch's, so what another part of the program has allowed is allowed here, too. `_load_guards` checks what is called.
"""

from __future__ import annotations

import pickle
import warnings
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import torch
import torch._weights_only_unpickler as theirs
from torch.serialization import StorageType

from ..tensors._allowed import callers_globals
from ._load_guards import REBUILD_QUANTISED, check_call, rebuild_quantised, set_tensor, watched
from ._load_policy import Refused

Identify = Callable[[Any], Any]
# Modules whose classes have moved since they were pickled: old → new name.
MOVED = {"torch.tensor": "torch._tensor"}
MAPPINGS = (dict, OrderedDict, Counter)
NESTED = {
    "torch.nested._internal.nested_tensor.NestedTensor",
    "torch.nested._internal.nested_tensor._rebuild_njt",
    "torch._dynamo.decorators._DimRange",
}
DISTRIBUTED = {
    "torch.distributed.device_mesh.DeviceMesh",
    *(f"torch.distributed.tensor._dtensor_spec.{name}" for name in ("DTensorSpec", "TensorMeta")),
    "torch.distributed.tensor.DTensor",
    *(f"torch.distributed.tensor.placement_types.{name}" for name in ("Partial", "Replicate", "Shard")),
}


class UnpicklerChoice(NamedTuple):
    """The unpickler to use: that of a pickle module, with arguments, or (without a module) the restricted one.

    Attributes:
        module: the pickle module, or None.
        arguments: keyword arguments of the Unpickler.
    """

    module: ModuleType | None
    arguments: Mapping[str, Any]

    @property
    def is_usual(self) -> bool:
        """Return whether it reads a pickle of plain values like the default unpickler."""
        return self.module in (None, pickle) and self.arguments == {"encoding": "utf-8"}

    def read(self, file: Any) -> Any:
        """Read the next pickle of the file, which does not refer to storages."""
        if self.module is None:
            return Restricted(file, **self.arguments).load()
        return self.module.load(file, **self.arguments)

    def read_object(self, file: Any, identify: Identify, moved: Mapping[str, str] = MOVED) -> Any:
        """Read the object's pickle, which comes next; `identify` resolves its persistent ids."""
        if self.module is None:
            return Restricted(file, identify, **self.arguments).load()

        class Unpickler(self.module.Unpickler):  # type: ignore[name-defined, misc]
            def find_class(self, module: str, name: str) -> Any:
                if type(name) is str and "Storage" in name:
                    try:
                        return StorageType(name)  # type: ignore[no-untyped-call]
                    except KeyError:
                        pass
                found = super().find_class(moved.get(module, module), name)
                return rebuild_quantised if found is REBUILD_QUANTISED else found

        unpickler = Unpickler(file, **self.arguments)
        unpickler.persistent_load = identify
        return unpickler.load()


class Restricted(pickle._Unpickler):
    """An unpickler for weights; `identify` resolves persistent ids."""

    stack: list[Any]
    encoding: str

    def __init__(self, file: Any, identify: Identify | None = None, *, encoding: str = "bytes") -> None:
        super().__init__(file, encoding=encoding)
        self._identify = identify

    @cached_property
    def theirs(self) -> dict[str, Any]:
        """The globals that PyTorch allows, by path."""
        found: dict[str, Any] = theirs._get_allowed_globals()
        return found

    @cached_property
    def _identities(self) -> set[int]:
        return {id(value) for value in self.theirs.values()}

    def allows(self, value: Any) -> bool:
        """Return whether a class or function is on one of the two lists."""
        return id(value) in self._identities or value in callers_globals().values()

    def persistent_load(self, pid: Any) -> Any:
        """Resolve the persistent id of a storage."""
        if type(pid) is not tuple and type(pid) is not int:
            raise Refused(f"persistent_load id must be tuple or int, but got {type(pid)}")
        if type(pid) is tuple and pid and as_text(pid[0]) != "storage":
            raise Refused(f"Only persistent_load of storage is allowed, but got {type(pid[0])}")
        if self._identify is None:
            raise Refused("unsupported persistent id encountered")
        return self._identify(pid)


def as_text(word: Any) -> Any:
    """Decode a keyword of PyTorch's, which Python 2 may have saved as bytes."""
    return word.decode("ascii") if isinstance(word, bytes) else word


# opcodes


def _unknown(opcode: int) -> Callable[[Restricted], NoReturn]:
    def refuse(u: Restricted) -> NoReturn:
        raise Refused(f"Unsupported operand {opcode}")

    return refuse


def _proto(u: Restricted) -> None:
    proto = u.read(1)[0]  # type: ignore[attr-defined]
    if proto != 2:
        warnings.warn(
            f"Detected pickle protocol {proto} in the checkpoint, which was not the default pickle protocol used by "
            "`torch.load` (2). The weights_only Unpickler might not support all instructions implemented by this protocol, "
            "please file an issue for adding support if you encounter this.",
            stacklevel=7,
        )


def _global(u: Restricted) -> None:
    module = u.readline()[:-1].decode("utf-8")  # type: ignore[attr-defined]
    name = u.readline()[:-1].decode("utf-8")  # type: ignore[attr-defined]
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    path = f"{module}.{name}"
    if module in theirs._blocklisted_modules:
        raise Refused(f"Trying to load unsupported GLOBAL {path} whose module {module} is blocked.")
    if path in u.theirs:
        u.stack.append(u.theirs[path])
    elif path in (callers := callers_globals()):
        u.stack.append(callers[path])
    else:
        raise Refused(_not_allowed(path))


def _not_allowed(path: str) -> str:
    if path in NESTED:
        return "``torch.nested`` and ``torch._dynamo`` must be imported to load nested jagged tensors (NJTs)"
    if path in DISTRIBUTED:
        return "``torch.distributed.tensor`` must be imported to load DTensors"
    path = path.removeprefix("builtins.")
    return (
        f"Unsupported global: GLOBAL {path} was not an allowed global by default. "
        f"Please use `torch.serialization.add_safe_globals([{path}])` or the "
        f"`torch.serialization.safe_globals([{path}])` context manager to allowlist this global if you trust this "
        "class/function."
    )


def _newobj(u: Restricted) -> None:
    args = u.stack.pop()
    kind = u.stack.pop()
    if kind is torch.nn.Parameter:
        u.stack.append(torch.nn.Parameter(*args))
    elif u.allows(kind):
        check_call(kind, args)
        u.stack.append(watched(kind, kind.__new__(kind, *args)))
    else:
        raise Refused(
            f"Can only create new object for nn.Parameter or classes allowlisted via `add_safe_globals` but got {kind}"
        )


def _reduce(u: Restricted) -> None:
    args = u.stack.pop()
    function = u.stack[-1]
    if not u.allows(function):
        owner = f" which belongs to {function.__self__}" if hasattr(function, "__self__") else ""
        raise Refused(f"Trying to call reduce for unrecognized function {function}{owner}")
    called = check_call(function, args)
    u.stack[-1] = watched(called, function(*args))


def _build(u: Restricted) -> None:
    state = u.stack.pop()
    target = u.stack[-1]
    kind = type(target)
    if kind is torch.Tensor or (kind is torch.nn.Parameter and len(state) == 4):
        set_tensor(target, state)
    elif kind is torch.nn.Parameter:
        target.__setstate__(state)
    elif kind is OrderedDict:
        target.__dict__.update(state)
    elif not u.allows(kind):
        raise Refused(
            f"Can only build Tensor, Parameter, OrderedDict or types allowlisted via `add_safe_globals`, but got {kind}"
        )
    elif hasattr(target, "__setstate__"):
        target.__setstate__(state)
    else:
        _set_attributes(target, state)


def _set_attributes(target: Any, state: Any) -> None:
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        target.__dict__.update(state)
    for name, value in (slots or {}).items():
        setattr(target, name, value)


def _append(u: Restricted) -> None:
    item = u.stack.pop()
    if type(u.stack[-1]) is not list:
        raise Refused(f"Can only append to lists, but got {type(u.stack[-1])}")
    u.stack[-1].append(item)


def _appends(u: Restricted) -> None:
    items = u.pop_mark()  # type: ignore[attr-defined]
    if type(u.stack[-1]) is not list:
        raise Refused(f"Can only extend lists, but got {type(u.stack[-1])}")
    u.stack[-1].extend(items)


def _setitem(u: Restricted) -> None:
    value, key = u.stack.pop(), u.stack.pop()
    _set(u.stack[-1], "SETITEM", [key, value])


def _setitems(u: Restricted) -> None:
    items = u.pop_mark()  # type: ignore[attr-defined]
    _set(u.stack[-1], "SETITEMS", items)


def _set(target: Any, opcode: str, items: list[Any]) -> None:
    if type(target) not in MAPPINGS:
        raise Refused(
            f"Can only {opcode} for dict, collections.OrderedDict, collections.Counter, but got {type(target)}"
        )
    for at in range(0, len(items), 2):
        target[items[at]] = items[at + 1]


def _short_binstring(u: Restricted) -> None:
    raw = u.read(u.read(1)[0])  # type: ignore[attr-defined]
    u.stack.append(raw if u.encoding == "bytes" else raw.decode(u.encoding, "strict"))


class _Opcodes(dict[int, Callable[[Any], None]]):
    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        return _unknown(opcode)


DATA = (
    pickle.MARK + pickle.STOP + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE + pickle.BININT + pickle.BININT1
    + pickle.BININT2 + pickle.LONG1 + pickle.BINFLOAT + pickle.BINUNICODE + pickle.EMPTY_DICT + pickle.EMPTY_LIST
    + pickle.EMPTY_SET + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3 + pickle.BINGET
    + pickle.LONG_BINGET + pickle.BINPUT + pickle.LONG_BINPUT + pickle.BINPERSID
)  # fmt: skip
GUARDED: dict[bytes, Callable[[Any], None]] = {
    pickle.PROTO: _proto,
    pickle.GLOBAL: _global,
    pickle.NEWOBJ: _newobj,
    pickle.REDUCE: _reduce,
    pickle.BUILD: _build,
    pickle.APPEND: _append,
    pickle.APPENDS: _appends,
    pickle.SETITEM: _setitem,
    pickle.SETITEMS: _setitems,
    pickle.SHORT_BINSTRING: _short_binstring,
}
Restricted.dispatch = _Opcodes(
    {code: pickle._Unpickler.dispatch[code] for code in DATA} | {code[0]: act for code, act in GUARDED.items()}
)
