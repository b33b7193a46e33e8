"""Laws of a host: the state of a module tree, and what a load does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from statedict import tree
from statedict.state import Leaf, computed, leaf_of

from .._law import law
from .._samples import same
from ._host_under_test import NAMES, RULES, SHARED, HostUnderTest, LateSource


def _computed(suite: HostUnderTest, value: Any) -> Leaf:
    leaf = leaf_of(suite.numpy(value))
    assert isinstance(leaf, Leaf)
    return computed(leaf.spec.dense(), [leaf], lambda array: array)


# The forms in which a state may hold an array of the host.
KINDS: dict[str, Callable[[HostUnderTest, Any], Any]] = {
    "arrays": lambda suite, value: value,
    "leaves": lambda suite, value: leaf_of(suite.numpy(value)),
    "computed leaves": _computed,
}


class StateLaws(HostUnderTest):
    """Laws of HostSuite on reading a state, and on loads that succeed."""

    @law
    def test_a_state_has_every_saved_name_in_order(self) -> Iterator[str]:
        """A state has parameters, then persistent buffers, then children, in order; what is None is left out."""
        found = list(tree.read(self.host, self.model()))
        if found != list(NAMES):
            yield f"the names are {found}, not {list(NAMES)}"

    @law
    def test_a_state_has_the_versions_of_its_modules(self) -> Iterator[str]:
        """`_metadata` of a state has the version of each module, by its path."""
        model = self.model()
        found = {path: entry.get("version") for path, entry in tree.read(self.host, model)._metadata.items()}
        wanted = dict.fromkeys(("", "group", "group.first", "group.again", "last"), type(model)._version)
        if found != wanted:
            yield f"the versions are {found}, not {wanted}"

    @law
    def test_a_state_shares_the_memory_of_its_module(self) -> Iterator[str]:
        """Values of a state are aliases: a load into the module changes them."""
        model = self.model()
        alive = tree.read(self.host, model)
        self.write(model, self.native(self.state()))
        now = self.values(model)
        yield from (f"{name!r} is a copy" for name, value in alive.items() if not same(self.numpy(value), now[name]))

    @law
    def test_a_state_is_loaded(self) -> Iterator[str]:
        """A load gives the module the elements of the state and reports every name; parameters stay the same objects."""
        for name, rules in RULES.items():
            model = self.model()
            parameter = model._parameters["weight"]
            outcome = self.write(model, self.native(self.state()), rules)
            yield from (f"under {name} rules {text}" for text in self.changed(model, self.state()))
            if outcome.loaded != list(NAMES):
                yield f"under {name} rules the names reported as loaded are {outcome.loaded}"
            if model._parameters["weight"] is not parameter:
                yield f"under {name} rules 'weight' was replaced by another object"

    @law
    def test_unread_leaves_are_loaded(self) -> Iterator[str]:
        """Leaves of a file are read into the module; a tied one only needs one name."""
        for assign in (False, True):
            model, source = self.model(), LateSource()
            state = {name: source.leaf(array) for name, array in self.state().items() if name != SHARED[1]}
            self.write(model, state, assign=assign)
            yield from (f"with assign={assign}, {text}" for text in self.changed(model, self.state()))
            yield from (f"with assign={assign}, {text}" for text in self.untied(model))

    @law
    def test_assign_registers_the_values(self) -> Iterator[str]:
        """With `assign` the memory of the values becomes that of the module; parameters stay parameters, ties stay ties."""
        model, state = self.model(), self.native(self.state())
        kinds = type(model._parameters["weight"]), type(model._buffers["count"])
        self.write(model, state, assign=True)
        yield from self.changed(model, self.state())
        if not np.shares_memory(self.numpy(model._parameters["weight"]), self.numpy(state["weight"])):
            yield "'weight' was copied"
        if (type(model._parameters["weight"]), type(model._buffers["count"])) != kinds:
            yield "a parameter or buffer has another class"
        yield from self.untied(model)

    @law
    def test_a_tied_parameter_needs_one_name(self) -> Iterator[str]:
        """Under sound rules the other names of a tied parameter are not missing; the outcome lists them."""
        for given, other in (SHARED, SHARED[::-1]):
            model, state = self.model(), self.native(self.state())
            del state[other]
            outcome = self.write(model, state)
            yield from self.changed(model, self.state())
            if outcome.missing or outcome.tied != {other: given}:
                yield f"without {other!r}, missing is {outcome.missing} and tied is {outcome.tied}"

    @law
    def test_values_may_lie_in_the_module(self) -> Iterator[str]:
        """A module is loaded correctly from values in its own memory, such as two parameters that are exchanged."""
        model = self.module()
        arrays = {"a": np.arange(4, dtype="f4"), "b": np.arange(4, 8, dtype="f4")}
        model._parameters.update({name: self.parameter(array.copy()) for name, array in arrays.items()})
        for kind, as_value in KINDS.items():
            state = tree.read(self.host, model)
            self.write(model, {"a": as_value(self, state["b"]), "b": as_value(self, state["a"])})
            arrays = {"a": arrays["b"], "b": arrays["a"]}
            yield from (f"exchanged as {kind}, {text}" for text in self.changed(model, arrays))

    @law
    def test_loaders_get_their_metadata(self) -> Iterator[str]:
        """An overridden `_load_from_state_dict` gets the version that was saved, and `super()` loads the values."""
        seen: list[Any] = []

        class Renaming(type(self.module())):  # type: ignore[misc]
            def _load_from_state_dict(self, values: Any, prefix: str, metadata: Any, *rest: Any) -> None:
                seen.append(metadata.get("version"))
                values[f"{prefix}w"] = values.pop(f"{prefix}old")
                super()._load_from_state_dict(values, prefix, metadata, *rest)

        model, child = self.module(), Renaming()
        child._parameters["w"] = self.parameter(np.zeros(2, "f4"))
        model._modules["child"] = child
        state = tree.read(self.host, model)
        state["child.old"] = state.pop("child.w")
        state._metadata["child"]["version"] = 7
        given = dict(state)
        self.write(model, state)
        if seen != [7]:
            yield f"the loader got the versions {seen}, not [7]"
        if dict(state).keys() != given.keys():
            yield "the caller's state was changed"

    @law
    def test_extra_state_goes_both_ways(self) -> Iterator[str]:
        """What `get_extra_state` returns is saved under the module's name, and `set_extra_state` gets it back."""
        model = self.module()
        model._modules["child"] = self.counting()
        if dict(tree.read(self.host, model)) != {"child._extra_state": 1}:
            yield f"the state is {dict(tree.read(self.host, model))}"
        self.write(model, {"child._extra_state": 5})
        if model._modules["child"].held != 5:
            yield "`set_extra_state` did not get the value"
        missing = self.write(model, {}, strict=False).missing
        if missing != ["child._extra_state"]:
            yield f"without it, the missing names are {missing}"
        unexpected = self.write(self.module(), {"_extra_state": 5}, strict=False).unexpected
        if unexpected != ["_extra_state"]:
            yield f"for a class without extra state, the unexpected names are {unexpected}"
