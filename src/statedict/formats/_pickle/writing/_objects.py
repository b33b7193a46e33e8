"""Write all other picklable values: objects by their own reduce protocol, classes and functions by name, opaque values.

This follows CPython's pickler for protocol 2, with the same checks: a global must be importable under its name, or it
could not be loaded again.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from codecs import encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from importlib import import_module
from itertools import islice
from operator import or_
from types import FunctionType
from typing import Any

from statedict.errors import SaveError
from statedict.state import Opaque

from .._values import Pair
from ._entries import entries
from ._memo import PickleWriter

Steps = Iterator[Any]
BATCH = 1000


def reduced(value: Any) -> Any:
    """Return what `value.__reduce_ex__(2)` returns; for a member of an Enum, the call of its class with its value.

    CPython 3.11.0 to 3.11.3 pickle a member as `getattr(Class, name)`, which readers of untrusted files refuse to call.
    """
    found = value.__reduce_ex__(2)
    if isinstance(value, Enum) and isinstance(found, tuple) and found[0] in (getattr, or_):
        return type(value), (value.value,)
    return found


def object_steps(w: PickleWriter, value: Any) -> Steps:
    """Write any object; yield the values inside it."""
    kind = type(value)
    if kind is type or kind is FunctionType:
        return _global_steps(w, value)
    reducer = copyreg.dispatch_table.get(kind)
    if reducer is None and issubclass(kind, type):
        return _global_steps(w, value)
    try:
        found = reducer(value) if reducer else reduced(value)
    except (TypeError, AttributeError, pickle.PicklingError, NotImplementedError) as error:
        raise SaveError(
            f"an object of type {kind.__module__}.{kind.__qualname__} cannot be pickled: {error}"
        ) from error
    if isinstance(found, str):
        return _global_steps(w, value, found)
    if (
        not isinstance(found, tuple)
        or not 2 <= len(found) <= 6
        or not callable(found[0])
        or not isinstance(found[1], tuple)
    ):
        raise SaveError(
            f"an object of type {kind.__module__}.{kind.__qualname__} cannot be pickled: "
            "__reduce_ex__ must return a string or a tuple of 2 to 6 items"
        )
    return reduce_steps(w, value, *found)


def reduce_steps(
    w: PickleWriter,
    value: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    state: Any = None,
    items: Iterable[Any] | None = None,
    pairs: Iterable[tuple[Any, Any]] | None = None,
    setter: Any = None,
) -> Steps:
    """Write a call and what is applied to its result."""
    made = getattr(function, "__name__", "")
    if made == "__newobj_ex__":
        kind, inner, kwargs = args
        function, args, made = partial(kind.__new__, kind, *inner, **kwargs), (), ""
    if made == "__newobj__":
        kind, *rest = args
        if getattr(value, "__class__", kind) is not kind:
            raise SaveError(f"{kind.__qualname__}.__reduce_ex__ would create an object of a different class")
        yield kind
        yield tuple(rest)
        w.out.extend(b"\x81")
    else:
        if function is OrderedDict:
            w.reference("collections", "OrderedDict")
        else:
            yield function
        if args:
            yield args
        else:
            w.out.extend(b")")
        w.out.extend(b"R")
    if w.memo.get(id(value)) is not None:
        w.out.extend(b"0")
        w.again(value)
    else:
        w.memoize(value)
    if items is not None:
        yield from _appends(w, iter(items))
    if pairs is not None:
        yield from _setitems(w, iter(pairs))
    if state is not None:
        yield from _state(w, value, state, setter)


def _state(w: PickleWriter, value: Any, state: Any, setter: Any) -> Steps:
    if setter is None:
        yield state
        w.out.extend(b"b")
        return
    yield setter
    w.again(value)
    yield state
    w.out.extend(b"\x86R0")


def _appends(w: PickleWriter, items: Iterator[Any]) -> Steps:
    for first in items:
        batch = [first, *islice(items, BATCH - 1)]
        w.out.extend(b"(" if len(batch) > 1 else b"")
        w.alive.append(batch)
        yield from batch
        w.out.extend(b"e" if len(batch) > 1 else b"a")


def _setitems(w: PickleWriter, pairs: Iterator[tuple[Any, Any]]) -> Steps:
    for first in pairs:
        batch = [first, *islice(pairs, BATCH - 1)]
        w.out.extend(b"(" if len(batch) > 1 else b"")
        w.alive.append(batch)
        yield from entries(w, batch)
        w.out.extend(b"u" if len(batch) > 1 else b"s")


# globals


def _global_steps(w: PickleWriter, value: Any, name: str | None = None) -> Steps:
    if isinstance(value, type) and value in _CONSTANT_TYPES:
        return reduce_steps(w, value, type, (_CONSTANT_TYPES[value],))
    name = name or getattr(value, "__qualname__", None) or value.__name__
    module = module_of(value, name)
    return _named(w, value, module, name)


_CONSTANT_TYPES: dict[Any, Any] = {type(each): each for each in (None, ..., NotImplemented)}


def _named(w: PickleWriter, value: Any, module: str, name: str) -> Steps:
    w.memo[id(value)] = w.reference(module, name)
    w.alive.append(value)
    return iter(())


def module_of(value: Any, name: str) -> str:
    """Return the module of a global; raise SaveError if its name is missing there or refers to another object."""
    module = getattr(value, "__module__", None)
    if module is None:
        module = next((known for known in list(sys.modules) if _attribute(known, name) is value), "__main__")
    found = _attribute(module, name)
    if found is not value:
        what = "does not exist" if found is _ABSENT else "is a different object"
        raise SaveError(f"{value!r} cannot be pickled: {module}.{name} {what}")
    return str(module)


_ABSENT = object()


def _attribute(module: str, name: str) -> Any:
    try:
        found: Any = sys.modules.get(module) or import_module(module)
    except ImportError:
        return _ABSENT
    for part in name.split("."):
        found = _ABSENT if part == "<locals>" else getattr(found, part, _ABSENT)
    return found


# opaque values


def opaque_steps(w: PickleWriter, value: Opaque) -> Steps:
    """Write an Opaque as the value it was read from."""
    if value.args is None:
        w.reference(value.module, value.name)
        return
    yield from _made(w, value)
    if id(value) in w.memo:  # its arguments contain it, and writing them wrote it
        w.out.extend(b"0")
        w.again(value)
        return
    w.memoize(value)
    for kind, run in _runs(value.items):
        yield from _setitems(w, iter(run)) if kind else _appends(w, iter(run))
    if value.state is not None:
        yield value.state
        w.out.extend(b"b")


def _made(w: PickleWriter, value: Opaque) -> Steps:
    assert value.args is not None
    args = value.args
    if not value.module:
        yield args[0]
        args = args[1:]
    elif value.new and value.kwargs:
        w.reference("copyreg", "__newobj_ex__")
        yield (Opaque(value.module, value.name), args, value.kwargs)
        w.out.extend(b"R")
        return
    else:
        w.reference(value.module, value.name)
    yield args
    w.out.extend(b"\x81" if value.new else b"R")


def _runs(items: list[Any]) -> Iterator[tuple[bool, list[Any]]]:
    run: list[Any] = []
    for item in items:
        if run and (type(item) is Pair) != (type(run[0]) is Pair):
            yield type(run[0]) is Pair, run
            run = []
        run.append(item)
    if run:
        yield type(run[0]) is Pair, run


def bytes_steps(w: PickleWriter, value: bytes) -> Steps:
    """Write bytes, which protocol 2 can only express as encoded text."""
    args = (value.decode("latin1"), "latin1") if value else ()
    return reduce_steps(w, value, encode if value else bytes, args)


def bytearray_steps(w: PickleWriter, value: bytearray) -> Steps:
    return reduce_steps(w, value, bytearray, (bytes(value),) if value else ())


def set_steps(w: PickleWriter, value: set[Any] | frozenset[Any]) -> Steps:
    return reduce_steps(w, value, type(value), (list(value),))
