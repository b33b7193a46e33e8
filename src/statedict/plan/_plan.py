"""A plan: which source tensor fills which slot, how it is adapted, and what does not fit. It has read nothing yet.

A plan is a value: it can be printed, looked at and executed as often as one likes. Executing gives a StateDict with the
slots' names whose tensors are the source's own, or leaves that are computed when they are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, overload

from statedict.state import Absent, Cast, DType, StateDict, cast_kind, raw_values

from .names._compute import Cook
from .names._parts import parts_of, told
from .names._recipe import moved_metadata
from .operations._facts import Shape, dtype_of, shape_of
from .reports._attempt import attempt
from .reports._report import Adapted, LoadReport
from .tensors._step import Mismatch, Step

# What PyTorch and the tree engine begin with when a tensor does not fit.
_REFUSAL = re.compile(r'size mismatch for (.+?): |While copying the parameter named "(.+?)", ')


class Problem(NamedTuple):
    """`kind` is "missing", "unexpected" or "mismatched"."""

    kind: str
    name: str
    text: str


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """What `match` decided.

    Attributes:
        steps: one for each slot that is filled, in the order of the source.
        missing: slots that nothing fills.
        passed: steps for what has no slot: it is passed on under its own name, or moved as the rest of its module was.
        excluded: slots that were not selected, and source names that belong to no slot and were not.
        skipped: slots that keep their values because their tensor does not fit and a policy says "skip".
        notes: warnings, as text: patterns that match nothing, names that are ambiguous.
        slots: the target's values by name.
        options: the arguments that it was made with, which say what was asked for.
        given: the source's values by name, as they were when the plan was made.
    """

    steps: Sequence[Step]
    slots: Mapping[str, Any] = field(repr=False)
    given: Mapping[str, Any] = field(repr=False)
    missing: tuple[str, ...] = ()
    passed: tuple[Step, ...] = ()
    excluded: tuple[str, ...] = ()
    skipped: tuple[Mismatch, ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    find_mismatched: Callable[[], tuple[Mismatch, ...]] = tuple

    @property
    def identical(self) -> bool:
        """Whether it changes nothing at all: every name has its slot, and passes untouched."""
        return isinstance(self.steps, Unchanged)

    @cached_property
    def mismatched(self) -> tuple[Mismatch, ...]:
        """Tensors that do not fit their slots. They are passed on, so that whoever loads them can say so."""
        return self.find_mismatched()

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Names that belong to no slot, as they are passed on."""
        return tuple(step.target for step in self.passed)

    @cached_property
    def withheld(self) -> frozenset[str]:
        """Slots that get nothing on purpose (excluded or skipped): a loader calls them missing, and they are not."""
        return frozenset(name for name in self.excluded if name in self.slots) | {skip.name for skip in self.skipped}

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """All that does not fit, in words."""
        found = [Problem("missing", name, f"nothing fills {name!r}") for name in self.missing]
        found += [Problem("unexpected", name, f"{name!r} belongs to no slot") for name in self.unexpected]
        return (*found, *(Problem("mismatched", one.name, _misfit(one)) for one in self.mismatched))

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not (self.missing or self.passed or self.mismatched)

    def execute(self, source: Mapping[str, Any]) -> StateDict:
        """The state that fills the slots, under their names, `_metadata` following; reads nothing.

        `source` is the one that was matched, or another with the same names and specs. Values pass through untouched, live
        arrays included, unless they are converted, adapted or cast: those are leaves, computed when they are read.
        """
        if self.identical and isinstance(source, StateDict):
            return source
        given = raw_values(source)
        cook = Cook(given)
        steps = [*self.steps, *self.passed]
        values = {step.target: step.value(cook) for step in steps}
        metadata = moved_metadata(getattr(source, "_metadata", None), ((s.target, s.sources) for s in steps))
        return StateDict.adopt(values, metadata, getattr(source, "_backend", "auto"))

    def report(
        self,
        *,
        missing: Iterable[str] | None = None,
        unexpected: Iterable[str] | None = None,
        loaded: Iterable[str] | None = None,
        cast: Iterable[Any] | None = None,
        errors: Iterable[str] = (),
        tied: Mapping[str, str] | None = None,
        advised: bool = True,
    ) -> LoadReport:
        """What comes of a load by this plan; `advised`: with what would help where something is wrong.

        The arguments are what the loader found; without them it is what the plan foresees, the slots' dtypes winning.
        Missing names that the plan withheld on purpose are left out.
        """
        errors = list(errors)
        missing = self.missing if missing is None else [name for name in missing if name not in self.withheld]
        unexpected = self.unexpected if unexpected is None else list(unexpected)
        steps = [] if self.identical else self.steps
        report = LoadReport(
            missing,
            unexpected,
            loaded=self._fitting() if loaded is None else loaded,
            mismatched=self.mismatched if loaded is None else self._refused(errors),
            errors=errors,
            adapted=[Adapted(step.target, step.sources, step.how) for step in steps if step.how],
            cast=[*self._own_casts(), *(self._loading_casts() if cast is None else cast)],
            renamed={step.sources[0]: step.target for step in steps if step.renamed and not step.how},
            tied=tied,
            excluded=self.excluded,
            skipped=self.skipped,
            notes=self.notes,
            shapes=self._shapes(missing, unexpected),
        )
        if advised and not report.ok:
            if missing and unexpected:
                report.notes += told(missing, unexpected, parts_of(self.given), parts_of(self.slots))
            report.attempt = attempt(self.given, self.slots, self.options, report.loaded)
        return report

    def _refused(self, errors: Sequence[str]) -> list[Mismatch]:
        """The mismatched tensors that the loader refused: a module may know how to take another shape.

        Shapes are compared only where there are errors: a loader has compared all of them.
        """
        said = {found[1] or found[2] for error in errors if (found := _REFUSAL.match(error))}
        return [one for one in self.mismatched if one.name in said] if said else []

    def _fitting(self) -> list[str]:
        bad = {one.name for one in self.mismatched}
        return [step.target for step in self.steps if step.target not in bad]

    def _own_casts(self) -> list[Cast]:
        """The casts that were asked for."""
        if self.identical:
            return []
        found = ((step, self._dtype(step._replace(dtype=None))) for step in self.steps if step.dtype)
        return [_cast(step.target, dtype, step.dtype) for step, dtype in found if dtype and step.dtype]

    def _loading_casts(self) -> list[Cast]:
        """The casts that a load into the slots will do."""
        filled = set(self._fitting())
        found = ((s.target, self._dtype(s), dtype_of(self.slots[s.target])) for s in self.steps if s.target in filled)
        return [_cast(name, has, wants) for name, has, wants in found if has and wants and cast_kind(has, wants)]

    def _dtype(self, step: Step) -> DType | None:
        """The element type that a step gives."""
        if step.dtype or step.adaptation:
            return step.dtype or (step.adaptation.spec.dtype if step.adaptation else None)
        return dtype_of(self.given[step.offer] if isinstance(step.offer, str) else step.offer.spec(self.given))

    def _shapes(self, missing: Iterable[str], unexpected: Iterable[str]) -> dict[str, Shape]:
        """What is known of the names that are problems, to tell near misses by."""
        passed = {step.target: step.sources[0] for step in self.passed}
        values = {name: self.given.get(passed.get(name, name)) for name in unexpected}
        values |= {name: self.slots.get(name) for name in missing}
        known = {name: shape_of(value) for name, value in values.items() if not isinstance(value, Absent)}
        return {name: shape for name, shape in known.items() if shape is not None}

    def __str__(self) -> str:
        from ._plan_text import plan_text

        return plan_text(self)

    def __repr__(self) -> str:
        return f"<Plan of {len(self.steps)} steps, {len(self.problems)} problems>"


class Unchanged(Sequence[Step]):
    """The steps of a plan in which every name fills the slot of its name; made only where somebody looks."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names

    @cached_property
    def _steps(self) -> list[Step]:
        return [Step(name, name) for name in self._names]

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        return self._steps[index]

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


def _cast(name: str, found: DType, wanted: DType) -> Cast:
    return Cast(name, found.name, wanted.name, cast_kind(found, wanted) or "rounding")


def _misfit(one: Mismatch) -> str:
    found = f"is {one.found}" if isinstance(one.found, str) else f"has shape {list(one.found)}"
    return f"{one.name!r} {found}, the slot has {list(one.expected)}" + (f"; {one.note}" if one.note else "")
