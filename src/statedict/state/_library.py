"""Array libraries: they convert leaves to arrays and back.

The library of a value is found by its type, so nothing is imported to find out that a value is not a tensor. The table at
the end names the libraries by strings: this is the only place where a package refers to a higher one, because torch must
not be imported unless the program already uses it. Arrays that are not in the table (CuPy, JAX) are recognised by
`__dlpack__`, which the array API standard requires.
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
from ._table import Table
from ._values import Compound, Opaque


class ArrayLibrary(Protocol):
    """Creates and inspects arrays of one library. This is its whole surface."""

    name: str

    def leaf(self, array: Any) -> Leaf | Compound | None:
        """Return a leaf for an in-memory array, sharing its memory and keeping it alive; None if it does not have elements,
        or elements that a tensor cannot have."""

    def table(self, arrays: Sequence[Any]) -> Table | None:
        """Return these arrays in CPU memory as a table (of addresses); None if one does not cover its whole storage, or is
        empty, or if single leaves are as fast."""

    def arrays(self, leaves: Sequence[Leaf], memory: Sequence[memoryview]) -> list[Any]:
        """Return arrays over `memory`, which holds the bytes of the whole storage of each leaf."""

    def compound(self, value: Compound, parts: dict[str, Any]) -> Any:
        """Return the sparse, quantised or nested array made of `parts` (arrays of this library, by role)."""

    def parts(self, array: Any) -> Any:
        """Return, for an array without a leaf, values that are equal if the arrays are equal; None if there are none."""


def library_of(value: object) -> ArrayLibrary | None:
    """Return the library of an array; None for other values."""
    kind = type(value)
    try:
        return _KNOWN[kind]
    except KeyError:
        # Cached by type: one dict lookup for each of many tensors.
        return _KNOWN.setdefault(kind, _find(kind))


def leaf_of(value: object) -> Leaf | Compound | None:
    """Return the leaf of a value: itself, or that of an array of any known library; None for other values."""
    if isinstance(value, (Leaf, Compound)):
        return value
    library = library_of(value)
    return None if library is None else library.leaf(value)


def library(name: str = "auto") -> ArrayLibrary:
    """Return the library by name: `"numpy"`, `"torch"`, or `"auto"`: torch if it is installed, NumPy otherwise.

    Raises MissingDependencyError if it is not installed, ValueError for any other name.
    """
    if name == "auto":
        name = "torch" if _is_installed("torch") else "numpy"
    if name not in LIBRARIES:
        raise ValueError(f"backend must be one of {', '.join(map(repr, ('auto', *LIBRARIES)))}, not {name!r}")
    if not _is_installed(name):
        raise MissingDependencyError(name, needed_for=f'backend="{name}"', extra=name if name == "torch" else None)
    return _at(LIBRARIES[name])


def _is_installed(name: str) -> bool:
    # A None in `sys.modules` blocks an import; `find_spec` raises for modules without a spec.
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
    """Return how to make the value that an Opaque describes; if torch is imported, also for PyTorch's classes and for those
    that the program has added to its safe globals."""
    if sys.modules.get("torch") is not None:
        return cast("Maker | None", getattr(import_module("statedict.torch"), "maker")(value))  # noqa: B009
    return maker_of(value)


def key_map(rules: str) -> Any:
    """Return the KeyMap for renaming rules as text."""
    return getattr(import_module("statedict.plan"), "KeyMap")(rules)  # noqa: B009


_KNOWN: dict[type, ArrayLibrary | None] = {}

LIBRARIES = {"numpy": "statedict.state._numpy:NUMPY", "torch": "statedict.torch:TORCH"}
ARRAY_TYPES = {
    ("numpy", "ndarray"): LIBRARIES["numpy"],
    ("torch", "Tensor"): LIBRARIES["torch"],
    ("statedict.nn._variable", "Variable"): "statedict.nn:VARIABLES",
}
FOREIGN = "statedict.state._foreign:FOREIGN"
