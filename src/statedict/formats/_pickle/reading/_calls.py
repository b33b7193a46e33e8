"""The opcodes that name and call globals, interpreted symbolically.

A global is pushed as an inert reference (an Opaque without arguments), or as a constant if it is a known one. A call
looks up our own constructor in a table; an unknown function, or an unknown form of call, becomes an Opaque that keeps
its arguments.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from statedict.errors import FormatError
from statedict.state import CLASSES, MAKERS, OF_TORCH, Leaf, Opaque

from .._names import STORAGE_DTYPE, TORCH_CONSTANTS, canonical, is_tensor_type, risk_of
from .._values import Import
from . import _arrays, _compounds, _containers, _plain, _tensors
from ._machine import Args, Constructor, Handler, Machine, Unfit
from ._records import unfold_all


def reference(m: Machine, module: str, name: str) -> Any:
    """Return the value for a global: a known constant, or one inert reference for each (module, name)."""
    found = m.references.get((module, name))
    if found is None:
        for part in (module, name):
            if not part or len(part) > m.limits.name_bytes or not part.isprintable():
                raise FormatError("the name of an import is empty, too long, or contains unprintable characters")
        known = canonical(module, name)
        constant = _constant(*known)
        safe = constant is not None or known in CONSTRUCTORS or known in HARMLESS or _is_torch_type(*known)
        if known in CONDITIONAL:
            safe = known == LOADER and m.nested is not None
        m.imports.append(Import(module, name, "safe" if safe else risk_of(*known)))
        found = m.references[module, name] = Opaque(module, name) if constant is None else constant
        if known == RECORD and m.top >= 0:
            m.rebuild = found
    return found


def is_built(module: str, name: str) -> bool:
    """Return whether reading a pickle makes a value of this class or function, not an Opaque."""
    return canonical(module, name) in CONSTRUCTORS


def call(m: Machine, target: Any, args: Any, *, new: bool = False, kwargs: dict[str, Any] | None = None) -> Any:
    """Return the value of calling `target`, or of creating an instance without calling it (`new`)."""
    if type(args) is not tuple:
        raise FormatError(f"the arguments of a call should be a tuple, not {type(args).__name__}")
    if type(target) is not Opaque:
        raise FormatError(f"the pickle calls an object of type {type(target).__name__}, which is not callable")
    if target.args is not None:
        # No pickler of data calls the result of a call; exploits do.
        made = (target.module, f"{target.name}()")
        if m.references.setdefault(made, target) is target:
            m.imports.append(Import(*made, "dangerous"))
        return _opaque(m, "", "call", (target, *args), kwargs)
    known = canonical(target.module, target.name)
    constructor = CONSTRUCTORS.get(known)
    if constructor is None and is_tensor_type(*known):
        constructor = _tensors.empty_tensor
    if constructor is not None and not kwargs:
        try:
            made = constructor(m, args)
        except Unfit:
            pass
        else:
            m.made.append(made)
            return made
    elif known[0].partition(".")[0] == "torch" and known[1] in STORAGE_DTYPE:
        raise FormatError(f"the pickle calls {target.path}, which would make a storage without bytes")
    return _opaque(m, target.module, target.name, args, kwargs, new=new)


def _opaque(
    m: Machine, module: str, name: str, args: Args, kwargs: dict[str, Any] | None, *, new: bool = False
) -> Opaque:
    made = Opaque(module, name, args, kwargs, new=new)
    m.made += made, made.kwargs, made.items
    return made


def judged(m: Machine) -> list[Import]:
    """Return the imports with their final risks. `getattr` is dangerous unless it was only used for methods and inner
    classes.
    """
    ordinary = bool(m.attributes) and all(m.attributes)
    return [
        each._replace(risk="unknown") if ordinary and canonical(each.module, each.name) == GETATTR else each
        for each in m.imports
    ]


def _constant(module: str, name: str) -> Any:
    if module == "torch":
        return TORCH_CONSTANTS.get(name)
    return _plain.CONSTANTS.get((module, name))


def _is_torch_type(module: str, name: str) -> bool:
    return is_tensor_type(module, name) or (module.partition(".")[0] == "torch" and name in STORAGE_DTYPE)


# opcodes


def _text(raw: bytes) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise FormatError("the name of an import is not valid UTF-8") from None


def _named(m: Machine, at: int) -> tuple[Any, int]:
    module, at = m.line(at, m.limits.name_bytes)
    name, at = m.line(at, m.limits.name_bytes)
    return reference(m, _text(module), _text(name)), at


def _global(m: Machine, at: int) -> int:
    found, at = _named(m, at)
    m.stack.append(found)
    return at


def _stack_global(m: Machine, at: int) -> int:
    name = m.stack.pop()
    module = m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise FormatError("the module and name of an import should be strings")
    if len(name) > m.limits.name_bytes or len(module) > m.limits.name_bytes:
        raise FormatError("the name of an import is too long")
    m.stack.append(reference(m, module, name))
    return at


def _reduce(m: Machine, at: int) -> int:
    args = m.stack.pop()
    m.stack[-1] = call(m, m.stack[-1], args)
    return at


def _inst(m: Machine, at: int) -> int:
    target, at = _named(m, at)
    args = tuple(m.popped())
    m.made.append(args)
    m.stack.append(call(m, target, args))
    return at


def _obj(m: Machine, at: int) -> int:
    target, *rest = m.popped() or [None]
    args = tuple(rest)
    m.made.append(args)
    m.stack.append(call(m, target, args))
    return at


def _newobj(m: Machine, at: int) -> int:
    args = m.stack.pop()
    m.stack[-1] = call(m, m.stack[-1], args, new=True)
    return at


def _newobj_ex(m: Machine, at: int) -> int:
    kwargs = m.stack.pop()
    args = m.stack.pop()
    if not _are_keywords(m, kwargs):
        raise FormatError("the keyword arguments of a call are not a dict of names")
    m.stack[-1] = call(m, m.stack[-1], args, new=True, kwargs=kwargs)
    return at


def _are_keywords(m: Machine, kwargs: Any) -> bool:
    if type(kwargs) is not dict or not all(type(name) is str for name in kwargs):
        return False
    m.charge(64 * len(kwargs))
    return True


def _build(m: Machine, at: int) -> int:
    state = m.stack.pop()
    target = m.stack[-1]
    kind = type(target)
    if kind is Leaf:
        # The fast path derives the memo slots of a record from its leaf, which works as long as leaves do not change.
        unfold_all(m)
    build = BUILDERS.get(kind) or _plain.BUILDERS.get((kind.__module__, kind.__name__))
    if build is None and kind.__module__.partition(".")[0] == "numpy":
        build = _arrays.build
    if build is None:
        raise FormatError(f"the pickle sets attributes on an object of type {kind.__name__}")
    build(m, target, state)
    return at


def _binpersid(m: Machine, at: int) -> int:
    m.stack.append(_tensors.identify(m, m.stack.pop()))
    return at


def _persid(m: Machine, at: int) -> int:
    raise FormatError("a persistent id is text; storages are identified by tuples")


# states


def _build_opaque(m: Machine, target: Opaque, state: Any) -> None:
    if target.args is None:
        raise FormatError(f"the pickle sets attributes on the class or function {target.path} itself")
    if target.state is not None:
        raise FormatError(f"the pickle sets attributes twice on the same {target.path}")
    target.state = state


def _build_mapping(m: Machine, target: Any, state: Any) -> None:
    """Set the instance attributes of an OrderedDict (torch stores `_metadata` there) or Counter."""
    if type(state) is tuple and len(state) == 2 and state[1] is None:
        state = state[0]
    if type(state) is not dict:
        raise FormatError(f"the attributes of {type(target).__name__} should be a dict, not {type(state).__name__}")
    m.charge(64 * len(state))
    for name, value in state.items():
        if type(name) is not str or name.startswith("__") or hasattr(type(target), name):
            raise FormatError(
                f"an attribute of {type(target).__name__} would replace one of its methods: {str(name)[:100]!r}"
            )
        setattr(target, name, value)


def _getattr(m: Machine, args: Args) -> Any:
    """`getattr`, which protocol 2 uses for bound methods and nested classes."""
    ordinary = len(args) == 2 and type(args[0]) is Opaque and type(args[1]) is str and bool(_ATTRIBUTE.match(args[1]))
    m.attributes.append(ordinary)
    if not ordinary or args[0].args is not None or not args[1][:1].isupper():
        raise Unfit
    owner, name = args[0], f"{args[0].name}.{args[1]}"
    if len(name) > m.limits.name_bytes:
        raise FormatError("the name of an import is too long")
    return m.references.setdefault((owner.module, name), Opaque(owner.module, name))


_ATTRIBUTE = re.compile(r"_?[A-Za-z][A-Za-z0-9_]{0,200}\Z")

# copyreg: the protocol abbreviated by NEWOBJ


def _copyreg_newobj(m: Machine, args: Args) -> Any:
    return call(m, _class(args), args[1:], new=True)


def _copyreg_newobj_ex(m: Machine, args: Args) -> Any:
    if len(args) != 3 or not _are_keywords(m, args[2]):
        raise Unfit
    return call(m, _class(args), args[1], new=True, kwargs=args[2])


def _reconstructor(m: Machine, args: Args) -> Any:
    """`copyreg._reconstructor`, which protocols 0 and 1 use for instances; one with a builtin base keeps all arguments."""
    if len(args) != 3 or args[2] is not None or type(args[1]) is not Opaque or args[1].path not in _OBJECT:
        raise Unfit
    return call(m, _class(args), (), new=True)


_OBJECT = ("builtins.object", "__builtin__.object")


def _class(args: Args) -> Opaque:
    if not args or type(args[0]) is not Opaque or args[0].args is not None or "copy" in args[0].module[:4]:
        raise Unfit
    found: Opaque = args[0]
    return found


RECORD = ("torch._utils", "_rebuild_tensor_v2")
GETATTR = ("builtins", "getattr")
LOADER = ("torch.storage", "_load_from_bytes")
CONDITIONAL = {GETATTR, LOADER}
CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    **_containers.CONSTRUCTORS,
    **_plain.CONSTRUCTORS,
    **_tensors.CONSTRUCTORS,
    **_compounds.CONSTRUCTORS,
    **_arrays.CONSTRUCTORS,
    GETATTR: _getattr,
    ("copyreg", "__newobj__"): _copyreg_newobj,
    ("copyreg", "__newobj_ex__"): _copyreg_newobj_ex,
    ("copyreg", "_reconstructor"): _reconstructor,
}
HARMLESS = _plain.HARMLESS | _compounds.HARMLESS | _arrays.HARMLESS | MAKERS.keys() | CLASSES.keys() | OF_TORCH
BUILDERS: dict[type, Callable[[Machine, Any, Any], None]] = {
    Opaque: _build_opaque,
    OrderedDict: _build_mapping,
    Counter: _build_mapping,
    Leaf: _tensors.build,
}
HANDLERS: dict[bytes, Handler] = {
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"i": _inst,
    b"o": _obj,
    b"\x81": _newobj,
    b"\x92": _newobj_ex,
    b"b": _build,
    b"Q": _binpersid,
    b"P": _persid,
}
