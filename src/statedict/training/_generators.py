"""Random generators as objects with a state. Those of torch, NumPy and Python have methods of other names for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from statedict.errors import LoadError


class _Kind(NamedTuple):
    """A class of generators: where it is, and how its state is read and written."""

    module: str
    name: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], object]

    @property
    def title(self) -> str:
        return f"{self.module}.{self.name}"


class GeneratorState:
    """A generator with the methods `state_dict` and `load_state_dict`.

    >>> import random
    >>> generator = random.Random(0)
    >>> state = GeneratorState(generator).state_dict()
    >>> first = generator.random()
    >>> GeneratorState(generator).load_state_dict(state)
    >>> generator.random() == first
    True
    """

    def __init__(self, generator: Any) -> None:
        kind = _kind_of(generator)
        if kind is None:
            raise TypeError(f"{type(generator).__name__} is not a random generator")
        self._generator, self._kind = generator, kind

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values and arrays."""
        return {"generator": self._kind.title, "state": self._kind.read(self._generator)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state; raises LoadError if it is that of another kind of generator."""
        if state["generator"] != self._kind.title:
            raise LoadError(f"the state of a {state['generator']} does not fit a {self._kind.title}")
        try:
            self._kind.write(self._generator, state["state"])
        except (TypeError, ValueError, RuntimeError) as error:
            raise LoadError(f"the state does not fit this {self._kind.title}: {error}") from error


def is_generator(value: Any) -> bool:
    """Whether the value is a random generator of torch, NumPy or Python whose state can be saved."""
    return _kind_of(value) is not None


def _kind_of(value: Any) -> _Kind | None:
    # A library that is not imported cannot have made the value.
    modules = ((kind, sys.modules.get(kind.module)) for kind in KINDS)
    return next((kind for kind, module in modules if module and isinstance(value, getattr(module, kind.name))), None)


def _set_bits(generator: Any, state: Any) -> None:
    generator.bit_generator.state = state


def _set_python(generator: Any, state: Any) -> None:
    version, internal, gauss = state
    generator.setstate((version, tuple(internal), gauss))


KINDS = (
    _Kind("torch", "Generator", lambda one: one.get_state(), lambda one, state: one.set_state(state.cpu())),
    _Kind("numpy.random", "Generator", lambda one: one.bit_generator.state, _set_bits),
    _Kind("numpy.random", "RandomState", lambda one: one.get_state(legacy=False), lambda one, s: one.set_state(s)),
    _Kind("random", "Random", lambda one: one.getstate(), _set_python),
)
