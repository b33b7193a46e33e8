"""Laws of a host on loads that are refused: under sound rules nothing has changed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from statedict import tree
from statedict.errors import LoadError, NotAStateError

from .._law import law
from ._host_under_test import NAMES, SHARED, HostUnderTest, LateSource


class RefusalLaws(HostUnderTest):
    """Laws of HostSuite on loads that are refused: under sound rules nothing has changed afterwards."""

    @law
    def test_missing_and_unexpected_names_are_refused(self) -> Iterator[str]:
        """Each missing or unexpected name refuses a strict load, is named, and nothing is changed."""
        for name in ("weight", "count", "group.first.bias"):
            state = self.native(self.state())
            del state[name]
            yield from self._refused(state, name)
        for name in ("other", "scratch", "absent", "group.none.weight", "group.other.weight"):
            yield from self._refused(self.native(self.state()) | self.native({name: np.zeros(2, "f4")}), name)

    @law
    def test_the_rest_is_loaded_unless_strict(self) -> Iterator[str]:
        """With strict=False missing and unexpected names are reported, and the other values are loaded."""
        model, state = self.model(), self.native(self.state())
        del state["weight"]
        state |= self.native({"other": np.zeros(2, "f4")})
        outcome = self.write(model, state, strict=False)
        yield from self.changed(model, self.state() | {"weight": np.zeros((2, 3), "f4")})
        if (outcome.missing, outcome.unexpected) != (["weight"], ["other"]):
            yield f"missing is {outcome.missing}, unexpected is {outcome.unexpected}"

    @law
    def test_one_misfit_leaves_everything(self) -> Iterator[str]:
        """A value of another shape is named, strict or not, and nothing is changed, whichever value it is."""
        for name in NAMES:
            for options in ({}, {"strict": False}, {"assign": True}):
                if not (name in SHARED and options == {"assign": True}):
                    yield from self._refused(
                        self.native(self.state() | {name: np.zeros((4, 4), "f4")}), name, **options
                    )

    @law
    def test_values_of_ties_must_agree(self) -> Iterator[str]:
        """Two different values for one tied parameter are refused; two equal ones are not, NaN included."""
        first, again = SHARED
        nan = np.full((3, 2), np.nan, "f4")
        for as_values in (self.native, self.unread):
            for assign in (False, True):
                state = self.state() | {first: nan}
                yield from self._refused(as_values(state | {again: np.ones((3, 2), "f4")}), again, assign=assign)
                model = self.model()
                self.write(model, as_values(state | {again: nan.copy()}), assign=assign)
                yield from self.changed(model, state | {again: nan})

    @law
    def test_lossy_casts_are_refused(self) -> Iterator[str]:
        """A cast that loses elements is refused unless it is allowed; every cast is reported with its kind."""
        halves = self.native(self.state() | {"count": np.array(1.5, "f4")})
        yield from self._refused(halves, "count")
        model = self.model()
        casts = self.write(model, halves, tree.SOUND.allowing("truncation")).casts
        if [(cast.name, cast.kind) for cast in casts] != [("count", "truncation")]:
            yield f"the casts that were reported are {casts}"
        yield from self.changed(model, self.state())

    @law
    def test_names_must_be_strings(self) -> Iterator[str]:
        """A name that is not a string is refused, and nothing is changed."""
        model, before = self.model(), self.values(self.model())
        try:
            self.write(model, {**self.native(self.state()), 3: 0}, strict=False)  # type: ignore[dict-item]
            yield "it is loaded"
        except NotAStateError:
            yield from self.changed(model, before)

    @law
    def test_a_failed_read_leaves_everything(self) -> Iterator[str]:
        """If reading a value fails, nothing is changed, whichever value it is."""
        for name, array in self.state().items():
            if not array.size or name in SHARED:
                continue
            for assign in (False, True):
                model, source = self.model(), LateSource([array])
                state = {**self.state(), name: array}
                before = self.values(model)
                try:
                    self.write(model, {key: source.leaf(value) for key, value in state.items()}, assign=assign)
                    yield f"{name!r} could not be read, but the load succeeded"
                except OSError:
                    yield from (f"after {name!r} could not be read, {text}" for text in self.changed(model, before))

    @law
    def test_a_judge_may_refuse_everything(self) -> Iterator[str]:
        """`judge` gets the outcome before anything is final; if it raises, nothing is changed."""
        model, seen = self.model(), list[list[str]]()
        before = self.values(model)

        def judge(outcome: tree.Outcome) -> None:
            seen.append(list(outcome.loaded))
            raise KeyboardInterrupt

        for assign in (False, True):
            with suppress(KeyboardInterrupt):
                self.write(model, self.native(self.state()), judge=judge, assign=assign)
            yield from (f"with assign={assign}, {text}" for text in self.changed(model, before))
        if seen != [list(NAMES)] * 2:
            yield f"in two loads, it got outcomes with the names {seen}"

    @law
    def test_what_foreign_code_changed_is_undone(self) -> Iterator[str]:
        """What hooks, loaders and `set_extra_state` changed before a load failed is restored."""

        class Failing(type(self.module())):  # type: ignore[misc]
            def _load_from_state_dict(self, *arguments: Any) -> None:
                super()._load_from_state_dict(*arguments)
                fail()

        def fail(*arguments: Any) -> None:
            tree.write(self.host, model._modules["group"], others, rules=tree.EXACT, strict=False)
            raise RuntimeError("midway")

        others = {name.removeprefix("group."): value for name, value in self.native(self.state(5)).items()}
        for place in ("pre-hook", "post-hook", "loader"):
            model = self.model()
            if place == "loader":
                model._modules["failing"] = Failing()
            else:
                model._modules["last"].__dict__[f"_load_state_dict_{place.replace('-', '_')}s"][0] = fail
            before = self.values(model)
            try:
                self.write(model, self.native(self.state()))
                yield f"the {place} was not called"
            except RuntimeError:
                yield from (f"after a {place} raised, {text}" for text in self.changed(model, before))

    @law
    def test_extra_state_is_restored(self) -> Iterator[str]:
        """If a load is refused, `set_extra_state` gets the earlier state again."""
        model = self.model()
        model._modules["child"] = self.counting()
        state = self.native(self.state() | {"last.weight": np.zeros(5, "f4")}) | {"child._extra_state": 5}
        try:
            self.write(model, state)
            yield "it is loaded"
        except LoadError:
            if model._modules["child"].held != 1:
                yield f"the extra state is {model._modules['child'].held} now"

    @law
    def test_a_backup_restores_every_bit(self) -> Iterator[str]:
        """`Host.keep` returns a function that restores the elements of arrays."""
        model = self.model()
        before = self.values(model)
        restore = self.host.keep(list(tree.read(self.host, model, keep_vars=True).values()))
        self.write(model, self.native(self.state()))
        restore()
        yield from self.changed(model, before)

    def _refused(self, state: dict[str, Any], name: str, **options: Any) -> Iterator[str]:
        """Return what is wrong unless loading `state` raises LoadError, which names `name`, and changes nothing."""
        model = self.model()
        before = self.values(model)
        try:
            self.write(model, state, **options)
            yield f"{name!r}: it is loaded ({options or 'strict'})"
        except LoadError as error:
            if name not in str(error):
                yield f"{name!r} is not named: {error}"
        yield from (f"after {name!r} was refused, {text}" for text in self.changed(model, before))
