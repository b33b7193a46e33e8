"""Array libraries: what turns leaves into arrays that people use, and back.

A value's library is told by its type, so nothing is imported to find out that a value is no tensor. The table at the end
names the libraries by string: this is the one place where a room names a higher one, because a state may hold torch
tensors only if torch is there, and must not import it otherwise. Arrays that are in no table (CuPy's, JAX's) are told by
`__dlpack__`, which the array API standard asks of each.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

from ..errors import MissingDependencyError
from ._leaf import Leaf
from ._revive import Maker, maker_of
from ._values import Compound, Opaque
from ._wholes import Wholes


class ArrayLibrary(Protocol):
    """How arrays of one library are made and looked into. This is its whole surface."""

    name: str

    def leaf(self, array: Any) -> Leaf | Compound | None:
        """The leaf that a live array is, aliasing its memory and keeping it alive; None where it has no elements to show, or
        elements that no tensor can have."""

    def wholes(self, arrays: Sequence[Any]) -> Wholes | None:
        """All of these live arrays in columns; None where any is not all of its own memory, or leaves are as quick."""

    def arrays(self, leaves: Sequence[Leaf], memory: Sequence[memoryview]) -> list[Any]:
        """Arrays over memory that holds, for each leaf, the bytes of its whole storage."""

    def compound(self, value: Compound, parts: dict[str, Any]) -> Any:
        """The sparse, quantised or nested array that `parts` (arrays of this library, by role) make."""

    def parts(self, array: Any) -> Any:
        """Of an array that has no leaf: values that are equal where arrays of its class are; None where there are none."""


def library_of(value: object) -> ArrayLibrary | None:
    """The library whose array `value` is, or None where it is no array."""
    kind = type(value)
    try:
        return _KNOWN[kind]
    except KeyError:
        # Caching by type makes the check of 32,000 tensors one dict lookup each.
        return _KNOWN.setdefault(kind, _find(kind))


def leaf_of(value: object) -> Leaf | Compound | None:
    """The leaf that `value` is (a leaf itself, or an array of any known library), or None."""
    if isinstance(value, (Leaf, Compound)):
        return value
    library = library_of(value)
    return None if library is None else library.leaf(value)


def library(name: str = "auto") -> ArrayLibrary:
    """The library by name: `"numpy"`, `"torch"`, or `"auto"`: torch where it is installed, NumPy otherwise.

    Raises MissingDependencyError where it is not installed, ValueError for another name.
    """
    if name == "auto":
        name = "torch" if _is_installed("torch") else "numpy"
    if name not in LIBRARIES:
        raise ValueError(f"backend must be one of {', '.join(map(repr, ('auto', *LIBRARIES)))}, not {name!r}")
    if not _is_installed(name):
        raise MissingDependencyError(name, needed_for=f'backend="{name}"', extra=name if name == "torch" else None)
    return _at(LIBRARIES[name])


def _is_installed(name: str) -> bool:
    # None in `sys.modules` is how imports are blocked; `find_spec` raises for modules that were made by hand.
    return sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None


def _find(kind: type) -> ArrayLibrary | None:
    for base in kind.__mro__:
        place = ARRAY_TYPES.get((base.__module__, base.__qualname__))
        if place is not None:
            return _at(place)
    return _at(FOREIGN) if hasattr(kind, "__dlpack__") else None


def _at(place: str) -> ArrayLibrary:
    module, _, attribute = place.partition(":")
    return cast(ArrayLibrary, getattr(import_module(module), attribute))


def maker(value: Opaque) -> Maker | None:
    """How the value that an Opaque describes is made; where torch is imported, also of PyTorch's classes and of those that
    the program has allowed to it."""
    if "torch" in sys.modules:
        return cast("Maker | None", getattr(import_module("statedict.torch"), "maker")(value))  # noqa: B009
    return maker_of(value)


def key_map(rules: str) -> Any:
    """Renaming rules as text, as the room above reads them."""
    return getattr(import_module("statedict.plan"), "KeyMap")(rules)  # noqa: B009


_KNOWN: dict[type, ArrayLibrary | None] = {}

LIBRARIES = {"numpy": "statedict.state._numpy:NUMPY", "torch": "statedict.torch:TORCH"}
ARRAY_TYPES = {
    ("numpy", "ndarray"): LIBRARIES["numpy"],
    ("torch", "Tensor"): LIBRARIES["torch"],
    ("statedict.nn._variable", "Variable"): "statedict.nn:VARIABLES",
}
FOREIGN = "statedict.state._foreign:FOREIGN"
