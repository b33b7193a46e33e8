"""Write a tree as torch.save's `data.pkl`: the counterpart of `parse`.

The result is protocol 2, byte for byte what CPython's pickler writes with torch's persistent ids, including the memo.
It is a separate implementation because CPython's calls back into Python for each part of a tensor, which takes many
times as long, and because leaves, compounds and opaque values must be written as the values that they represent.

*Theory of operation.* A value is either written at once (`_written`), or given to a generator that writes its opcodes
and yields the values inside it; `emit` keeps a stack of generators, so nesting is not limited by the Python stack. As
in CPython, a value is memoised by identity at its first use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from statedict.errors import SaveError
from statedict.state import (
    Compound,
    DType,
    Leaf,
    Opaque,
    Parts,
    StateDict,
    Table,
    collector_paused,
    library,
    raw_values,
)

from .._recipe import WRAPPER
from .._recipe_values import rebuilding
from .._values import Placement, TypedStorage
from .._walk import path_to
from . import _compounds as compounds
from . import _objects as objects
from . import _tensors as tensors
from ._entries import as_tensors, entries, kinds_of_arrays, live
from ._memo import PickleWriter, get

Steps = Iterator[Any]
BATCH = 1000
# Nesting below this depth is within the limits of every reader.
DEEP = 100
# Each takes more memory than its opcodes pay for.
MANY = 1000


def emit(
    obj: Any,
    store: Callable[[Leaf], Placement],
    store_all: Callable[[Table], int | None] | None = None,
    *,
    substitute: Callable[[Any], Any] = lambda value: value,
    check: Callable[[bytes, list[Any] | None], None] | None = None,
) -> bytes:
    """Return `obj` as a pickle. `store` is called for each tensor's leaf, in the order in which torch numbers storages,
    and returns the place of its storage: keys are "0", "1" …, one for each storage. `store_all` does so for many tensors
    at once: it returns the first of their consecutive keys if each has a new storage that it covers completely; or None,
    and each is passed to `store` then.

    NumPy arrays are written as NumPy arrays, as torch.save does, except those in a state, which are written as tensors:
    directly in a StateDict or in an OrderedDict with `_metadata`, and in the state of an optimizer. `substitute` returns
    what to write instead of an object that is not plain data (or the object itself). `check` is called with the pickle and
    the values that a reader might refuse (None: the whole might exceed a limit), if there are any. Raises SaveError for what
    cannot be pickled.

    >>> emit({"step": 3}, store=lambda leaf: None)
    b'\\x80\\x02}q\\x00X\\x04\\x00\\x00\\x00stepq\\x01K\\x03s.'
    """
    w = PickleWriter(store, store_all, substitute)
    w.out.extend(b"\x80\x02")
    child: Any = obj
    stack: list[Steps] = [iter((obj,))]
    # The values whose generators are on the stack.
    owners: list[Any] = [obj]
    try:
        with collector_paused():
            while stack:
                for child in stack[-1]:
                    if not _written(w, child):
                        owners.append(child)
                        stack.append(_begin(w, child))
                        w.unusual |= len(stack) > DEEP
                        break
                else:
                    stack.pop()
                    owners.pop()
    except SaveError as error:
        path = next(filter(None, (path_to(obj, value) for value in (child, *reversed(owners)))), None)
        raise (SaveError(f"{path}: {error}") if path else error) from error.__cause__
    w.out.extend(b".")
    pickled = bytes(w.out)
    doubtful = w.to_read_back()
    if check is not None and doubtful != []:
        check(pickled, doubtful)
    return pickled


def _written(w: PickleWriter, value: Any) -> bool:
    """Write a value that does not contain others, or was written before; return False for the rest."""
    if w.atom(value):
        return True
    kind = type(value)
    if kind in STEPS or kind in CALLS:
        return False
    if kind in compounds.CONSTANTS:
        _constant(w, value)
        return True
    if kind is Leaf or kind is Compound or kind is Parts:
        leaf = value
    elif kind.__module__ == "torch.storage" and kind.__name__ in ("TypedStorage", "UntypedStorage"):
        tensors.bare_storage(w, _storage(value))
        return True
    elif (kind.__module__, kind.__name__) in compounds.INERT:
        _constant(w, compounds.INERT[kind.__module__, kind.__name__](value))
        return True
    else:
        leaf = live(w, value)
    if leaf is None or leaf.traits.attributes or leaf.traits.subclass or getattr(leaf, "layout", None) == WRAPPER:
        return False
    slot = w.slot_together(w.store(leaf).key, value) if w.together and type(leaf) is Leaf else None
    if slot is not None:
        w.out += get(slot)
        return True
    w.memo[id(value)] = _tensor(w, leaf)
    w.alive.append(value)
    if type(leaf) is Compound:
        w.doubt(value)
    return True


def _constant(w: PickleWriter, value: Any) -> None:
    """Write a value that is not an atom, but does not contain others either."""
    compounds.CONSTANTS[type(value)](w, value)
    if type(value) not in (DType, TypedStorage):
        w.doubt(value)


def _begin(w: PickleWriter, value: Any) -> Steps:
    kind = type(value)
    if kind in STEPS:
        return STEPS[kind](w, value)
    if kind in CALLS:
        return _doubtful(w, value, CALLS[kind](w, value))
    leaf = value if isinstance(value, (Leaf, Compound)) else live(w, value)
    if isinstance(leaf, Compound) and leaf.layout == WRAPPER:
        device = next(iter(leaf.parts.values())).storage.location
        return _given(w, value, rebuilding(leaf, leaf.parts, device))
    if leaf is not None:
        return _doubtful(w, value, _tensor_steps(w, value, leaf))
    given = w.substitute(value)
    return _doubtful(w, value, objects.object_steps(w, value)) if given is value else _given(w, value, given)


def _doubtful(w: PickleWriter, value: Any, steps: Steps) -> Steps:
    """Write a value that a reader might refuse, or read as inert data, and all that is inside it."""
    if w.in_doubt:
        yield from steps
        return
    start, known = len(w.out), len(w.doubtful)
    w.doubt(value)
    w.in_doubt = True
    yield from steps
    w.in_doubt = False
    if len(w.doubtful) > known:
        w.doubtful_bytes += len(w.out) - start


def _given(w: PickleWriter, value: Any, given: Any) -> Steps:
    """Write the substitute of a value."""
    w.alive += (value, given)
    yield given
    if id(given) in w.memo:
        w.memo[id(value)] = w.memo[id(given)]


def _storage(value: Any) -> TypedStorage:
    """Return the TypedStorage of a live storage."""
    leaf = library("torch").leaf(value)
    assert isinstance(leaf, Leaf)
    dtype = leaf.spec.dtype if type(value).__name__ == "TypedStorage" else None
    return TypedStorage(leaf.storage, dtype, leaf.spec.numel)


# tensors


def _plain(w: PickleWriter, leaf: Leaf | Compound, requires_grad: bool) -> int:
    if isinstance(leaf, Leaf):
        return tensors.strided(w, leaf, requires_grad)
    return compounds.compound(w, leaf, requires_grad)


def _tensor(w: PickleWriter, leaf: Leaf | Compound) -> int:
    traits = leaf.traits
    if not traits.parameter:
        return _plain(w, leaf, traits.requires_grad)
    w.reference("torch._utils", "_rebuild_parameter")
    _plain(w, leaf, False)
    w.flag(traits.requires_grad)
    tensors.hooks(w)
    tensors.tuple_end(w, b"\x87")
    return tensors.reduce(w)


def _tensor_steps(w: PickleWriter, value: Any, leaf: Leaf | Compound) -> Steps:
    """Write a tensor with Python attributes, or of a subclass."""
    traits = leaf.traits
    if traits.parameter and traits.subclass is None:
        w.reference("torch._utils", "_rebuild_parameter_with_state")
        w.out += b"("
        _plain(w, leaf, False)
        w.flag(traits.requires_grad)
        tensors.hooks(w)
    else:
        w.reference("torch._tensor", "_rebuild_from_type_v2")
        w.out += b"("
        _taken_apart(w, leaf, *_class_of(value, leaf))
    yield dict(traits.attributes) if traits.attributes else None
    tensors.tuple_end(w, b"t")
    w.out += b"R"
    w.memoize(value)


def _class_of(value: Any, leaf: Leaf | Compound) -> tuple[str, str]:
    """Return module and name of the class of a live tensor, or of the tensor that was read."""
    if leaf.traits.subclass is None:
        return "torch", "Tensor"
    if not isinstance(value, (Leaf, Compound)):
        name = type(value).__qualname__
        return objects.module_of(type(value), name), name
    # The text does not say where the module ends: assume the first step that looks like a class.
    steps = leaf.traits.subclass.split(".")
    end = next((n for n, step in enumerate(steps) if n and step[:1].isupper()), len(steps) - 1)
    return ".".join(steps[:end]), ".".join(steps[end:])


def _taken_apart(w: PickleWriter, leaf: Leaf | Compound, module: str, name: str) -> None:
    """Write the function that rebuilds the plain tensor, the class, and the function's arguments."""
    requires_grad = leaf.traits.requires_grad
    if isinstance(leaf, Leaf):
        place = w.store(leaf)
        w.reference("torch._utils", tensors.strided_function(place.spec.dtype))
        w.reference(module, name)
        tensors.strided_arguments(w, leaf, place, requires_grad)
    else:
        w.reference("torch._utils", compounds.compound_function(leaf))
        w.reference(module, name)
        compounds.compound_arguments(w, leaf, requires_grad)


# containers


def _list(w: PickleWriter, value: list[Any]) -> Steps:
    w.out.extend(b"]")
    w.memoize(value)
    if len(value) == 1:
        yield value[0]
        w.out.extend(b"a")
        return
    for start in range(0, len(value), BATCH):
        w.out.extend(b"(")
        yield from w.others(value[start : start + BATCH])
        w.out.extend(b"e")


def _tuple(w: PickleWriter, value: tuple[Any, ...]) -> Steps:
    count = len(value)
    if not count:
        w.out.extend(b")")
        return
    w.out.extend(b"(" if count > 3 else b"")
    yield from w.others(value)
    if id(value) in w.memo:  # it contains itself, and writing its items wrote it
        w.out.extend(b"1" if count > 3 else b"0" * count)
        w.again(value)
        return
    w.out.extend(b"t" if count > 3 else (b"", b"\x85", b"\x86", b"\x87")[count])
    w.memoize(value)


def _dict(w: PickleWriter, value: dict[Any, Any]) -> Steps:
    w.out.extend(b"}")
    w.memoize(value)
    if len(value) == 1:
        yield from entries(w, list(value.items()))
        w.out.extend(b"s")
    elif value:
        yield from _batches(w, _of_optimizer(value) if value.keys() == OPTIMIZER else value.items())
        if len(value) % BATCH == 0:
            w.out.extend(b"(u")  # CPython looks for another batch after a full one, and writes it even if it is empty


def _batches(w: PickleWriter, items: Iterable[tuple[Any, Any]]) -> Steps:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        w.out.extend(b"(")
        yield from entries(w, batch)
        w.out.extend(b"u")


def _state_dict(w: PickleWriter, value: StateDict) -> Steps:
    """Write an OrderedDict with `_metadata`; arrays of any library in it are written as tensors."""
    made, _, state, _, _ = value.__reduce__()
    return objects.reduce_steps(w, value, made, (), state, None, as_tensors(raw_values(value)))


def _ordered_dict(w: PickleWriter, value: OrderedDict[Any, Any]) -> Steps:
    """Write it as CPython does; if it is a module's state (it has `_metadata`), NumPy arrays in it are written as
    tensors.
    """
    w.ordered += 1
    w.unusual |= w.ordered > MANY
    if hasattr(value, "_metadata") and kinds_of_arrays(value.values()):
        return objects.reduce_steps(w, value, OrderedDict, (), vars(value), None, as_tensors(value))
    steps = objects.object_steps(w, value)
    return steps if vars(value).keys() <= {"_metadata"} else _doubtful(w, value, steps)


def _of_optimizer(value: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Return the items of an optimizer's state dict; NumPy arrays in its per-parameter states become tensors."""
    states = value["state"]
    if not isinstance(states, dict) or not all(isinstance(state, dict) for state in states.values()):
        return value.items()
    if not any(kinds_of_arrays(state.values()) for state in states.values()):
        return value.items()
    return {**value, "state": {number: dict(as_tensors(state)) for number, state in states.items()}}.items()


OPTIMIZER = {"state", "param_groups"}
STEPS: dict[type, Callable[[PickleWriter, Any], Steps]] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
    OrderedDict: _ordered_dict,
    StateDict: _state_dict,
}
# Written as calls.
CALLS: dict[type, Callable[[PickleWriter, Any], Steps]] = {
    set: objects.set_steps,
    frozenset: objects.set_steps,
    bytes: objects.bytes_steps,
    bytearray: objects.bytearray_steps,
    Opaque: objects.opaque_steps,
}
