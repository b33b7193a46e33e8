"""What a subclass of HostSuite provides, and the module trees that its laws use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar

import numpy as np

from statedict import tree
from statedict.state import Leaf, Read, Storage, contiguous, leaf_of
from statedict.tree import Host, Rules

from .._samples import Array, same

RULES = {"exact": tree.EXACT, "sound": tree.SOUND}
SHARED = "group.first.weight", "group.again.weight"
# The names of the state of `model()`, in order.
NAMES = ("weight", "count", "group.first.weight", "group.first.bias", "group.again.weight", "last.weight")


class HostUnderTest(ABC):
    """What a subclass provides: `host`, `module`, `parameter` and `numpy`; and `buffer` where it differs from `parameter`.

    Attributes:
        host: the Host.
    """

    host: ClassVar[Host]

    @abstractmethod
    def module(self) -> Any:
        """Return a new module of the base class, without parameters, buffers or children."""

    @abstractmethod
    def parameter(self, array: Array) -> Any:
        """Return a new parameter with the elements of a NumPy array, as `_parameters` of a module holds it."""

    def buffer(self, array: Array) -> Any:
        """Return a new buffer, as `_buffers` of a module holds it."""
        return self.parameter(array)

    @abstractmethod
    def numpy(self, value: Any) -> Array:
        """Return a parameter, buffer or value of a state as a NumPy array."""

    # for the laws

    def model(self) -> Any:
        """Return a tree: `group.first.weight` and `group.again.weight` are one parameter; one child is None."""
        root, group, first, again, last = (self.module() for _ in range(5))
        root._parameters.update(weight=self.parameter(np.zeros((2, 3), "f4")), absent=None)
        root._buffers.update(count=self.buffer(np.array(0, "i8")), scratch=self.buffer(np.zeros(2, "f4")))
        root._non_persistent_buffers_set.add("scratch")
        shared = self.parameter(np.zeros((3, 2), "f4"))
        first._parameters.update(weight=shared, bias=self.parameter(np.zeros(3, "f4")))
        again._parameters.update(weight=shared)
        last._parameters.update(weight=self.parameter(np.zeros((0, 2), "f4")))
        group._modules.update(first=first, again=again, none=None)
        root._modules.update(group=group, last=last)
        return root

    def state(self, start: int = 1) -> dict[str, Array]:
        """Return values for `model()`, different ones for each `start`."""
        shared = np.arange(start, start + 6, dtype="f4").reshape(3, 2)
        return {
            "weight": np.arange(start, start + 6, dtype="f4").reshape(2, 3),
            "count": np.array(start, "i8"),
            "group.first.weight": shared,
            "group.first.bias": np.arange(start, start + 3, dtype="f4"),
            "group.again.weight": shared,
            "last.weight": np.zeros((0, 2), "f4"),
        }

    def native(self, state: Mapping[str, Array]) -> dict[str, Any]:
        """Return a state with the host's own arrays, tied as the NumPy arrays are."""
        made = {id(array): tree.read(self.host, self._holding(array))["w"] for array in state.values()}
        return {name: made[id(array)] for name, array in state.items()}

    def unread(self, state: Mapping[str, Array]) -> dict[str, Any]:
        """Return a state of leaves that have to be read."""
        source = LateSource()
        return {name: source.leaf(array) for name, array in state.items()}

    def counting(self) -> Any:
        """Return a module with an extra state, its attribute `held`."""

        class Counting(type(self.module())):  # type: ignore[misc]
            held: Any = 1

            def get_extra_state(self) -> Any:
                return self.held

            def set_extra_state(self, state: Any) -> None:
                self.held = state

        return Counting()

    def untied(self, model: Any) -> list[str]:
        """Return a text if the tied parameters of `model()` are two objects."""
        group = model._modules["group"]._modules
        tied = group["first"]._parameters["weight"] is group["again"]._parameters["weight"]
        return [] if tied else ["tied parameters are two objects"]

    def _holding(self, array: Array) -> Any:
        module = self.module()
        module._buffers["w"] = self.buffer(array)
        return module

    def values(self, module: Any) -> dict[str, Array]:
        """Return copies of the values of a module, by name."""
        return {name: np.array(self.numpy(value)) for name, value in tree.read(self.host, module).items()}

    def write(self, module: Any, state: Mapping[str, Any], rules: Rules = tree.SOUND, **options: Any) -> tree.Outcome:
        return tree.write(self.host, module, state, rules=rules, **options)

    def changed(self, module: Any, before: Mapping[str, Array]) -> list[str]:
        """Return a text for each value of a module that differs from `before`."""
        now = self.values(module)
        names = dict.fromkeys([*before, *now])
        return [f"{name!r} has changed" for name in names if not same(now.get(name), before.get(name))]


class LateSource:
    """A Source of arrays that have to be read, as from a file; reading those in `failing` raises OSError."""

    def __init__(self, failing: Sequence[Array] = ()) -> None:
        self._failing = [id(array) for array in failing]

    def leaf(self, array: Array) -> Leaf:
        """Return a leaf of an array that is read from this source."""
        live = leaf_of(array)
        assert isinstance(live, Leaf)
        spec = contiguous(live.spec.dtype, array.shape)
        return Leaf(spec, Storage(self, ("late", next(_TOKENS)), spec.nbytes, array))

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        for storage, start, into in reads:
            if id(storage.where) in self._failing:
                raise OSError("the disk is gone")
            into[:] = storage.where.tobytes()[start : start + len(into)]

    def verify(self, storages: Iterable[Storage]) -> None:
        """Do nothing: there are no checksums."""

    def view(self, storage: Storage, *, writable: bool = False) -> None:
        return None


_TOKENS = count()
