"""The Host of this module system: what the engine needs to know about its parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from statedict.state import ArrayLibrary, Compound, Leaf, leaf_of, library
from statedict.tree import Fit, Reach, Rules, Slots

from ._arrays import is_writable
from ._filling import fit_exact, fit_sound
from ._module import Module
from ._saving import _IncompatibleKeys
from ._variable import Variable, raw

# The loaders of our layers change only states of versions older than this.
_NEWEST = 2


class NnHost:
    """The Host of `statedict.nn`."""

    module: type[Any] = Module
    detach: Callable[[Any], Any] | None = staticmethod(raw)

    def incompatible(self, missing: list[str], unexpected: list[str]) -> Any:
        return _IncompatibleKeys(missing, unexpected)

    @property
    def library(self) -> ArrayLibrary:
        return library("numpy")

    def fit(self, slots: Slots, rules: Rules) -> Fit:
        return fit_sound(slots, rules) if rules.sound else fit_exact(slots)

    def keep(self, arrays: Iterable[Any]) -> Callable[[], None]:
        restores = [_remember(array) for array in arrays]

        def put_back() -> None:
            for restore in restores:
                restore()

        return put_back

    def reach(self, code: Any) -> Reach:
        return "module" if _is_ours(code) else "tree"

    def adds_nothing(self, module: Any, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> bool:
        return _is_ours(type(module)._load_from_state_dict) and (metadata.get("version") or 0) >= _NEWEST

    def together(self, module: Any) -> None:
        return None


def _is_ours(code: Any) -> bool:
    return str(getattr(getattr(code, "__func__", code), "__module__", "")).startswith(f"{__package__}.")


def _remember(array: Any) -> Callable[[], None]:
    if isinstance(array, Variable):
        attributes, elements = dict(vars(array)), _elements(array.data)

        def restore() -> None:
            vars(array).clear()
            vars(array).update(attributes)
            elements()

        return restore
    return _elements(array)


def _elements(array: Any) -> Callable[[], None]:
    """Return a function that restores an array's elements; it does nothing if the array is not writable."""
    if isinstance(array, np.ndarray):
        saved = array.copy(order="K")
        return (lambda: np.copyto(array, saved)) if array.flags.writeable else _nothing
    if not is_writable(array):
        return _nothing
    other = copy.deepcopy(array)

    def restore() -> None:
        array[...] = other

    return restore


def _nothing() -> None:
    return None


class VariableLibrary:
    """The ArrayLibrary of Parameters and Buffers: uses the arrays that they hold."""

    name = "statedict.nn"

    def leaf(self, array: Any) -> Leaf | Compound | None:
        return leaf_of(array.data)

    def table(self, arrays: Sequence[Any]) -> None:
        """Single leaves are as fast."""

    def arrays(self, leaves: Sequence[Leaf], memory: Sequence[memoryview]) -> list[Any]:
        return library("numpy").arrays(leaves, memory)

    def compound(self, value: Compound, parts: dict[str, Any]) -> Any:
        return library("numpy").compound(value, parts)

    def parts(self, array: Any) -> Any:
        return library("numpy").parts(array.data)


HOST = NnHost()
VARIABLES = VariableLibrary()
