"""Rebuild values of well-known classes from the inert data in a file.

A pickle names a class and its arguments; `Opaque` holds this description. This file has a fixed table of classes of the
standard library and NumPy that contain only data. They are built here from checked parts: nothing that the file names is
imported or called.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from ...errors import FormatError
from .. import _arguments as arguments
from ..tensors._values import Opaque


class Maker(NamedTuple):
    """How to make a value from the parts of an Opaque, which are already rebuilt.

    Attributes:
        make: called with the arguments and the keyword arguments; the value may still be incomplete.
        fill: called with the value, its state, and the items to append; None if a value with either is an error.
    """

    make: Callable[[tuple[Any, ...], Mapping[str, Any]], Any]
    fill: Callable[[Any, Any, list[Any]], None] | None = None


# The exceptions that makers raise for invalid parts.
UNFIT = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)


def maker_of(value: Opaque) -> Maker | None:
    """Return how to make the value that an Opaque describes; None if its class is not in the table.

    >>> maker_of(Opaque("argparse", "Namespace", (), new=True)) is None
    False
    >>> maker_of(Opaque("argparse", "Namespace")) is None
    True
    """
    return (CLASSES if value.args is None else MAKERS).get((value.module, value.name))


def remade(value: Opaque, maker: Maker, args: Any, kwargs: Any) -> Any:
    """Make the value, without its state and items; raises FormatError if its parts are not valid."""
    try:
        return maker.make(args or (), kwargs or {})
    except UNFIT as error:
        raise FormatError(f"cannot rebuild a {value.path} from the file: {error}") from error


def fill(value: Opaque, maker: Maker, made: Any, state: Any, items: list[Any]) -> None:
    """Set the state and items of `made`; raises FormatError if they are not valid."""
    if state is None and not items:
        return
    try:
        if maker.fill is None:
            raise TypeError("a state was not expected")
        maker.fill(made, state, items)
    except UNFIT as error:
        raise FormatError(f"the state of a {value.path} is not valid: {error}") from error


def _no_items(set_state: Callable[[Any, Any], None]) -> Callable[[Any, Any, list[Any]], None]:
    def fill(made: Any, state: Any, items: list[Any]) -> None:
        if items:
            raise TypeError("appended items were not expected")
        set_state(made, state)

    return fill


def _attributes(made: Any, state: Any) -> None:
    if type(state) is not dict or not all(type(name) is str for name in state):
        raise TypeError(f"expected a dict of attributes, found {arguments.a(state)}")
    vars(made).update(state)


def _namespace() -> Any:
    # Importing it takes 3 ms, which `import statedict` need not wait for.
    from argparse import Namespace

    return Namespace()


def _no_arguments(kind: Callable[[], Any]) -> Callable[[tuple[Any, ...], Mapping[str, Any]], Any]:
    def make(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if args or kwargs:
            raise TypeError("it takes no arguments")
        return kind()

    return make


def _bytes_io(made: io.BytesIO, state: Any) -> None:
    content, position, attributes = state
    if type(content) is not bytes or type(position) is not int or position < 0 or attributes:
        raise TypeError("expected its bytes and a position")
    made.write(content)
    made.seek(position)


# NumPy's generators


def _bit_generators() -> dict[str, Any]:
    import numpy.random as random

    return {name: getattr(random, name) for name in BIT_GENERATORS.values()}


def _bit_generator(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    (kind,) = args
    name = kind if isinstance(kind, str) else str(getattr(kind, "__name__", None))
    return _bit_generators()[name]()


def _generator(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    import numpy.random as random

    return random.Generator(_owned(args))


def _random_state(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    import numpy.random as random

    return random.RandomState(_owned(args))


def _owned(args: tuple[Any, ...]) -> Any:
    """Return the bit generator in the first argument; before NumPy 1.24, that was only its name."""
    first = args[0] if args else "MT19937"
    made = _bit_generators()[first]() if isinstance(first, str) else first
    if type(made) not in _bit_generators().values():
        raise TypeError("expected a bit generator")
    return made


def _set_generator(made: Any, state: Any) -> None:
    # NumPy 2 adds the seed sequence, from which `spawn` draws.
    made.__setstate__(state)


def _seed_sequence(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return an empty SeedSequence; its values are in the third argument, or follow as its state."""
    import numpy.random as random

    made = random.SeedSequence(0)
    if args[2] is not None:
        _set_seed_sequence(made, args[2])
    return made


def _set_seed_sequence(made: Any, state: Any) -> None:
    entropy, spawned, pool, pool_size, spawn_key = state
    if len(pool) != pool_size:
        raise ValueError(f"expected a pool of {pool_size} values, found {len(pool)}")
    made.__init__(entropy, spawn_key=spawn_key, pool_size=pool_size, n_children_spawned=spawned)


def _class(name: str) -> Maker:
    def make(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        import numpy.random as random

        return getattr(random, name)

    return Maker(make)


BIT_GENERATORS = {
    ("numpy.random._mt19937", "MT19937"): "MT19937",
    ("numpy.random._pcg64", "PCG64"): "PCG64",
    ("numpy.random._pcg64", "PCG64DXSM"): "PCG64DXSM",
    ("numpy.random._philox", "Philox"): "Philox",
    ("numpy.random._sfc64", "SFC64"): "SFC64",
}
# Classes that are arguments of the makers below.
CLASSES: dict[tuple[str, str], Maker] = {
    **{path: _class(name) for path, name in BIT_GENERATORS.items()},
    ("numpy.random.bit_generator", "SeedSequence"): _class("SeedSequence"),
}
MAKERS: dict[tuple[str, str], Maker] = {
    ("argparse", "Namespace"): Maker(_no_arguments(_namespace), _no_items(_attributes)),
    ("types", "SimpleNamespace"): Maker(_no_arguments(SimpleNamespace), _no_items(_attributes)),
    ("_io", "BytesIO"): Maker(_no_arguments(io.BytesIO), _no_items(_bytes_io)),
    ("numpy.random._pickle", "__bit_generator_ctor"): Maker(_bit_generator, _no_items(_set_generator)),
    ("numpy.random._pickle", "__generator_ctor"): Maker(_generator, _no_items(_set_generator)),
    ("numpy.random._pickle", "__randomstate_ctor"): Maker(_random_state, _no_items(_set_generator)),
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): Maker(_seed_sequence, _no_items(_set_seed_sequence)),
}
# Classes that `statedict.torch` rebuilds if torch is imported; without torch they stay Opaque.
OF_TORCH = frozenset(
    {
        ("torch._C", "Generator"),
        ("torch.nn.parameter", "UninitializedParameter"),
        ("torch.nn.parameter", "UninitializedBuffer"),
    }
)
