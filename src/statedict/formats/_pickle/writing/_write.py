"""Writing a tree as torch.save's `data.pkl`: the partner of `_parse`.

Protocol 2, byte for byte what CPython's pickler writes with torch's persistent ids, memo and all. It is our own because a
tensor costs 2 µs here and 37 there, where each is taken apart by Python callbacks; and because leaves, compounds and
opaque values must come out as what they stand for.

*Theory of operation.* A value is either written at once (`_written`), or given to a generator that writes its opcodes and
yields the values inside it; `emit` keeps a stack of generators, so no nesting is too deep. As in CPython, a value is
memoised by identity at its first use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from struct import pack
from typing import Any, Literal

from statedict.errors import SaveError
from statedict.state import (
    Compound,
    DType,
    Leaf,
    Opaque,
    StateDict,
    Wholes,
    collector_paused,
    dtype,
    leaf_of,
    library,
    library_of,
    raw_values,
)

from .._values import Kind, Placement, Size, TorchConstant, TypedStorage
from .._walk import path_to
from . import _compounds as compounds
from . import _objects as objects
from . import _tensors as tensors
from ._entries import entries, live
from ._memo import Writer, get

Steps = Iterator[Any]
Write = Callable[[Writer, Any], object]
BATCH = 1000
# So many values in each other are no reader's concern.
DEEP = 100
# Each takes more memory than its opcodes pay for.
MANY = 1000


def emit(
    obj: Any,
    store: Callable[[Leaf], Placement],
    store_all: Callable[[Wholes], int | None] | None = None,
    *,
    arrays: Literal["values", "tensors"] = "values",
    substitute: Callable[[Any], Any] = lambda value: value,
    check: Callable[[bytes], None] | None = None,
) -> bytes:
    """`obj` as a pickle. `store` is called for each tensor's leaf, in order, and says where its storage will lie.
    `store_all` does so for many tensors at once: it gives the first of their keys, which count up, where the storage of each
    is new; or None, and each is stored alone then.

    NumPy arrays are written as NumPy arrays, as torch.save does, except those in a state, which are tensors: directly in a
    StateDict or in an OrderedDict with `_metadata`, and in the state of an optimizer (`arrays="tensors"`: all of them).
    `substitute` gives what is written in the place of an object that is not plain data (or the object itself). `check` is
    called with a pickle that holds anything but names, tensors and small values.
    Raises SaveError for what cannot be pickled.

    >>> emit({"step": 3}, store=lambda leaf: None)
    b'\\x80\\x02}q\\x00X\\x04\\x00\\x00\\x00stepq\\x01K\\x03s.'
    """
    w = Writer(store, store_all, arrays=arrays == "tensors", substitute=substitute)
    w.out.extend(b"\x80\x02")
    child: Any = obj
    stack: list[Steps] = [iter((obj,))]
    # The values that the stack is about.
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
    if check is not None and not w.is_plain():
        check(pickled)
    return pickled


def _written(w: Writer, value: Any) -> bool:
    """Write a value that holds no others, or was written before; False for the rest."""
    if w.again(value):
        return True
    kind = type(value)
    write = ATOMS.get(kind)
    if write is not None:
        write(w, value)
        return True
    if kind is Leaf or kind is Compound:
        leaf = value
    elif kind in STEPS:
        return False
    elif kind.__module__ == "torch.storage" and kind.__name__ in ("TypedStorage", "UntypedStorage"):
        tensors.bare_storage(w, _storage(value))
        return True
    elif (kind.__module__, kind.__name__) in INERT:
        inert = INERT[kind.__module__, kind.__name__](value)
        ATOMS[type(inert)](w, inert)
        return True
    else:
        leaf = live(w, value)
    if leaf is None or leaf.traits.attributes or leaf.traits.subclass:
        return False
    slot = w.slot_together(w.store(leaf).key, value) if w.together and type(leaf) is Leaf else None
    if slot is not None:
        w.out += get(slot)
        return True
    w.memo[id(value)] = _tensor(w, leaf)
    w.alive.append(value)
    return True


def _begin(w: Writer, value: Any) -> Steps:
    steps = STEPS.get(type(value))
    if steps is not None:
        return steps(w, value)
    leaf = value if isinstance(value, (Leaf, Compound)) else live(w, value)
    if leaf is not None:
        return _tensor_steps(w, value, leaf)
    given = w.substitute(value)
    return objects.object_steps(w, value) if given is value else _given(w, value, given)


def _given(w: Writer, value: Any, given: Any) -> Steps:
    """What is written in the place of a value."""
    w.alive += (value, given)
    yield given
    if id(given) in w.memo:
        w.memo[id(value)] = w.memo[id(given)]


def _storage(value: Any) -> TypedStorage:
    """A live storage."""
    leaf = library("torch").leaf(value)
    assert isinstance(leaf, Leaf)
    dtype = leaf.spec.dtype if type(value).__name__ == "TypedStorage" else None
    return TypedStorage(leaf.storage, dtype, leaf.spec.numel)


# tensors


def _plain(w: Writer, leaf: Leaf | Compound, requires_grad: bool) -> int:
    if isinstance(leaf, Leaf):
        return tensors.strided(w, leaf, requires_grad)
    return compounds.compound(w, leaf, requires_grad)


def _tensor(w: Writer, leaf: Leaf | Compound) -> int:
    traits = leaf.traits
    if not traits.parameter:
        return _plain(w, leaf, traits.requires_grad)
    w.reference("torch._utils", "_rebuild_parameter")
    _plain(w, leaf, False)
    w.flag(traits.requires_grad)
    tensors.hooks(w)
    tensors.tuple_end(w, b"\x87")
    return tensors.reduce(w)


def _tensor_steps(w: Writer, value: Any, leaf: Leaf | Compound) -> Steps:
    """A tensor with Python attributes, or of a subclass."""
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
    """Module and name of the class that a tensor has, if it is live, or had."""
    if leaf.traits.subclass is None:
        return "torch", "Tensor"
    if not isinstance(value, (Leaf, Compound)):
        name = type(value).__qualname__
        return objects.module_of(type(value), name), name
    # Where the module ends is not said: at the first step that looks like a class.
    steps = leaf.traits.subclass.split(".")
    end = next((n for n, step in enumerate(steps) if n and step[:1].isupper()), len(steps) - 1)
    return ".".join(steps[:end]), ".".join(steps[end:])


def _taken_apart(w: Writer, leaf: Leaf | Compound, module: str, name: str) -> None:
    """The function that rebuilds the plain tensor, the class that it had, and the function's arguments."""
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


def _list(w: Writer, value: list[Any]) -> Steps:
    w.out.extend(b"]")
    w.memoize(value)
    if len(value) == 1:
        yield value[0]
        w.out.extend(b"a")
        return
    for start in range(0, len(value), BATCH):
        w.out.extend(b"(")
        yield from value[start : start + BATCH]
        w.out.extend(b"e")


def _tuple(w: Writer, value: tuple[Any, ...]) -> Steps:
    count = len(value)
    if not count:
        w.out.extend(b")")
        return
    w.out.extend(b"(" if count > 3 else b"")
    yield from value
    if id(value) in w.memo:  # It holds itself, and was written meanwhile.
        w.out.extend(b"1" if count > 3 else b"0" * count)
        w.again(value)
        return
    w.out.extend(b"t" if count > 3 else (b"", b"\x85", b"\x86", b"\x87")[count])
    w.memoize(value)


def _dict(w: Writer, value: dict[Any, Any]) -> Steps:
    w.out.extend(b"}")
    w.memoize(value)
    if len(value) == 1:
        yield from entries(w, list(value.items()))
        w.out.extend(b"s")
    elif value:
        yield from _batches(w, _of_optimizer(value) if value.keys() == OPTIMIZER else value.items())
        if len(value) % BATCH == 0:
            w.out.extend(b"(u")  # CPython looks for another batch after a full one, and writes it empty.


def _batches(w: Writer, items: Iterable[tuple[Any, Any]]) -> Steps:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        w.out.extend(b"(")
        yield from entries(w, batch)
        w.out.extend(b"u")


def _state_dict(w: Writer, value: StateDict) -> Steps:
    """An OrderedDict with `_metadata`; the arrays in it are tensors, whatever library they are of."""
    made, _, state, _, _ = value.__reduce__()
    return objects.reduce_steps(w, value, made, (), state, None, _as_tensors(raw_values(value)))


def _ordered_dict(w: Writer, value: OrderedDict[Any, Any]) -> Steps:
    """As CPython writes it; where it is a module's state (it has `_metadata`), the NumPy arrays in it are tensors."""
    w.ordered += 1
    w.unusual |= w.ordered > MANY
    if hasattr(value, "_metadata") and _kinds_of_arrays(value.values()):
        return objects.reduce_steps(w, value, OrderedDict, (), vars(value), None, _as_tensors(value))
    return objects.object_steps(w, value)


def _of_optimizer(value: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """The items of an optimizer's state dict; the NumPy arrays of its parameters' states are tensors."""
    states = value["state"]
    if not isinstance(states, dict) or not all(isinstance(state, dict) for state in states.values()):
        return value.items()
    if not any(_kinds_of_arrays(state.values()) for state in states.values()):
        return value.items()
    return {**value, "state": {number: dict(_as_tensors(state)) for number, state in states.items()}}.items()


def _as_tensors(value: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """The entries, NumPy arrays as leaves; those that no tensor can have (text, records) as they are."""
    arrays = _kinds_of_arrays(value.values())
    return [(name, (type(item) in arrays and leaf_of(item)) or item) for name, item in value.items()]


def _kinds_of_arrays(values: Iterable[Any]) -> set[type]:
    """The types of NumPy arrays among the values. One of each type is asked: there may be 32,000 of one."""
    return {
        kind
        for kind, value in {type(value): value for value in values}.items()
        if getattr(library_of(value), "name", None) == "numpy"
    }


# values that hold no others


def _size(w: Writer, value: Size) -> None:
    compounds.size(w, value)
    w.memoize(value)


ATOMS: dict[type, Write] = {
    type(None): lambda w, value: w.out.extend(b"N"),
    bool: lambda w, value: w.flag(value),
    int: Writer.number,
    float: lambda w, value: w.out.extend(b"G" + pack(">d", value)),
    str: Writer.text,
    Size: _size,
    DType: lambda w, value: w.reference("torch", value.name),
    TorchConstant: compounds.constant,
    TypedStorage: tensors.bare_storage,
}


def _torch_constant(kind: Kind) -> Callable[[Any], TorchConstant]:
    return lambda value: TorchConstant(kind, str(value).removeprefix("torch."))


# PyTorch's constants, told by their types' names: each is one object, and is written as what stands for it here.
INERT: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("torch", "dtype"): lambda value: dtype(str(value)),
    ("torch", "layout"): _torch_constant("layout"),
    ("torch", "qscheme"): _torch_constant("qscheme"),
    ("torch", "memory_format"): _torch_constant("memory_format"),
}
OPTIMIZER = {"state", "param_groups"}
STEPS: dict[type, Callable[[Writer, Any], Steps]] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
    OrderedDict: _ordered_dict,
    set: objects.set_steps,
    frozenset: objects.set_steps,
    bytes: objects.bytes_steps,
    bytearray: objects.bytearray_steps,
    StateDict: _state_dict,
    Opaque: objects.opaque_steps,
}
