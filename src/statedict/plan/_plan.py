"""Plan which source tensor fills which slot, and how it is adapted, from the specs of both. Reads no tensor.

The stages of `match`, in order: rename; pair equal names; pair names that are equal without wrappers; select; check shapes.
Every stage uses lookup tables and never compares a name with all others, so the time is linear in the number of names.

A Plan is a value: it can be printed, inspected and executed several times. `execute` returns a StateDict with the names of
the slots; its tensors are those of the source, or leaves that are computed when they are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from statedict.state import Cast, DType, Patterns, Spec, StateDict, cast_kind, fold, raw_values
from statedict.state import dtype as find_dtype

from ..errors import printable
from .names._generalise import folded_pairs
from .names._keymap import KeyMap
from .names._parts import notes_on_parts, parts_of
from .names._recipe import Evaluator, moved_metadata
from .names._resolve import Resolved
from .names._select import Selection, assign, by_pattern, unmatched_patterns
from .names._wrappers import follow
from .operations._specs import Shape, dtype_of, spec_of
from .reports._attempt import Attempt, TensorInfo, attempt
from .reports._report import Adapted, LoadReport
from .tensors._fit import Fitting, misfits
from .tensors._policy import Mismatched, chooser
from .tensors._step import Mismatch, Step

# The beginning of the errors of PyTorch and of the tree engine about a tensor that does not fit.
_REFUSAL = re.compile(r'size mismatch for (.+?): |While copying the parameter named "(.+?)", ')


class Problem(NamedTuple):
    """A name that does not fit; `kind` is "missing", "unexpected" or "mismatched"."""

    kind: str
    name: str
    text: str


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """Which source tensor fills which slot, and what does not fit: the result of `match`.

    Attributes:
        fills: the steps; None if every tensor fills the slot of its own name, unchanged.
        missing: slots that are not filled.
        passed: steps for unexpected tensors, which are passed on under their own name, or moved with the rest of their
            module.
        excluded: slots that were not selected, and source names without a slot that were not selected.
        skipped: slots that keep their values because of the policy "skip".
        notes: warnings, as text: patterns that match nothing, ambiguous names.
        slots: the target's values by name.
        options: the arguments of `match` that were given.
        given: the source's values by name, at the time the plan was made.
    """

    fills: Sequence[Step] | None
    slots: Mapping[str, Any] = field(repr=False)
    given: Mapping[str, Any] = field(repr=False)
    missing: tuple[str, ...] = ()
    passed: tuple[Step, ...] = ()
    excluded: tuple[str, ...] = ()
    skipped: tuple[Mismatch, ...] = ()
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    find_mismatched: Callable[[], tuple[Mismatch, ...]] = tuple

    @cached_property
    def steps(self) -> Sequence[Step]:
        """One step for each slot that is filled, in the order of the source."""
        return [Step(name, name) for name in self.given] if self.fills is None else self.fills

    @cached_property
    def mismatched(self) -> tuple[Mismatch, ...]:
        """Tensors that do not fit their slots. They are passed on, so that the loader reports them."""
        return self.find_mismatched()

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Names without a slot, as they are passed on."""
        return tuple(step.target for step in self.passed)

    @cached_property
    def withheld(self) -> frozenset[str]:
        """Slots that are deliberately not filled (excluded or skipped): not to be reported as missing."""
        return frozenset(name for name in self.excluded if name in self.slots) | {skip.name for skip in self.skipped}

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that does not fit, with a text for each."""
        found = [Problem("missing", name, f"{name!r} is not in the source") for name in self.missing]
        found += [Problem("unexpected", name, f"{name!r} is not in the model") for name in self.unexpected]
        return (*found, *(Problem("mismatched", one.name, _misfit(one)) for one in self.mismatched))

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not (self.missing or self.passed or self.mismatched)

    def execute(self, source: Mapping[str, Any]) -> StateDict:
        """Return the state that fills the slots, under their names, with `_metadata`; reads no tensor.

        `source` is the one that was matched, or another with the same names and specs. Values are passed on unchanged unless
        they are converted, adapted or cast: those become leaves that are computed when they are read.
        """
        if self.fills is None and isinstance(source, StateDict):
            return source
        given = raw_values(source)
        evaluator = Evaluator(given)
        steps = [*self.steps, *self.passed]
        values = {step.target: step.value(evaluator) for step in steps}
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
        """Return the report of a load by this plan; `advised`: it can be printed, and can suggest calls that would work.

        The arguments are the loader's results; without them, the report is a forecast, in which tensors are cast to the
        dtypes of the slots. Missing names that the plan withheld on purpose are left out.
        """
        errors = list(errors)
        missing = self.missing if missing is None else [name for name in missing if name not in self.withheld]
        unexpected = self.unexpected if unexpected is None else list(unexpected)
        steps = self.fills or ()
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
            dry_run=loaded is None,
        )
        if advised and not report.ok:
            if missing and unexpected:
                report.notes += notes_on_parts(missing, unexpected, parts_of(self.given), parts_of(self.slots))
            report.attempt = attempt(self.given, self.slots, self.options, report.loaded)
            report.shapes = self._shapes(report.attempt, missing, unexpected)
        return report

    def _refused(self, errors: Sequence[str]) -> list[Mismatch]:
        """Return the mismatched tensors that the loader refused: a module's hooks may accept another shape.

        Shapes are compared only if there are errors, because the loader has already compared all of them.
        """
        said = {found[1] or found[2] for error in errors if (found := _REFUSAL.match(error))}
        return [one for one in self.mismatched if one.name in said] if said else []

    def _fitting(self) -> list[str]:
        bad = {one.name for one in self.mismatched}
        return [step.target for step in self.steps if step.target not in bad]

    def _own_casts(self) -> list[Cast]:
        """Return the requested casts."""
        found = ((step, self._dtype(step._replace(dtype=None))) for step in self.fills or () if step.dtype)
        return [_cast(step.target, dtype, step.dtype) for step, dtype in found if dtype and step.dtype]

    def _loading_casts(self) -> list[Cast]:
        """Return the casts that a load into the slots will make."""
        filled = set(self._fitting())
        found = ((s.target, self._dtype(s), dtype_of(self.slots[s.target])) for s in self.steps if s.target in filled)
        return [_cast(name, has, wants) for name, has, wants in found if has and wants and cast_kind(has, wants)]

    def _dtype(self, step: Step) -> DType | None:
        """Return the dtype that results from a step."""
        if step.dtype or step.adaptation:
            return step.dtype or (step.adaptation.spec.dtype if step.adaptation else None)
        return dtype_of(self.given[step.offer] if isinstance(step.offer, str) else step.offer.spec(self.given))

    def _shapes(self, known: Attempt, missing: Iterable[str], unexpected: Iterable[str]) -> dict[str, Shape]:
        """Return the known shapes of missing and unexpected names, used to find near misses."""
        passed = {step.target: step.sources[0] for step in self.passed if step.renamed}
        values = [(name, known.given.get(passed.get(name, name))) for name in unexpected]
        values += [(name, known.slots.get(name)) for name in missing]
        return {name: value.shape for name, value in values if isinstance(value, (Spec, TensorInfo))}

    def __str__(self) -> str:
        changed = [step for step in self.steps if step.change]
        renamed = [step for step in self.steps if step.renamed and not step.change]
        lines = [f"{len(self.steps):,} of {len(self.slots):,} tensors filled, {len(self.problems):,} problems"]
        lines += _section("renamed", folded_pairs((step.sources[0], step.target) for step in renamed))
        lines += _section("changed", Counter(_step_text(step) for step in changed))
        for title, names in (("missing", self.missing), ("unexpected", self.unexpected), ("excluded", self.excluded)):
            lines += _section(title, Counter({group.text: len(group.names) for group in fold(names)}))
        for title, some in (("mismatched", self.mismatched), ("skipped", self.skipped)):
            lines += _section(title, Counter(f"{one.name}: {one.found} for {list(one.expected)}" for one in some))
        return "\n".join(map(printable, [*lines, *(f"warning: {note}" for note in self.notes)]))

    def __repr__(self) -> str:
        return f"<Plan of {len(self.steps)} steps, {len(self.problems)} problems>"


def _cast(name: str, found: DType, wanted: DType) -> Cast:
    return Cast(name, found.name, wanted.name, cast_kind(found, wanted) or "rounding")


def _misfit(one: Mismatch) -> str:
    found = f"is {one.found}" if isinstance(one.found, str) else f"has shape {list(one.found)}"
    return f"{one.name!r} {found}, the model expects {list(one.expected)}" + (f"; {one.note}" if one.note else "")


_LINES = 10


def _step_text(step: Step) -> str:
    """Return a changed step as one line, with a placeholder for its layer."""
    rule = next(iter(folded_pairs([(step.sources[0], step.target)])))
    joined = f" and {len(step.sources) - 1} more" if len(step.sources) > 1 else ""
    return f"{rule.replace(' -> ', f'{joined} -> ')}  ({step.change})"


def _section(title: str, lines: Counter[str]) -> list[str]:
    """Return a titled list of at most `_LINES` lines."""
    if not lines:
        return []
    shown = [f"  {line}" + (f"  ×{count:,}" if count > 1 else "") for line, count in list(lines.items())[:_LINES]]
    more = sum(list(lines.values())[_LINES:])
    return [f"{title} {sum(lines.values()):,}:", *shown, *([f"  … and {more:,} more"] if more else [])]


def match(
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    rename: Any = None,
    mismatched: Mismatched = "error",
    dtype: Any = None,
    device: Any = None,
    wrappers: bool = True,
) -> Plan:
    """Plan how to fill the parameters and buffers of `target` (its slots) from `source`.

    Args:
        source, target: states; only their names, shapes and dtypes are used.
        include, exclude: glob patterns for names of either side (see `names/_select.py`).
        rename: a KeyMap or anything that makes one, applied to the source's names first.
        mismatched: the policy for tensors of a different shape (see `tensors/_policy.py`).
        dtype: cast floating-point tensors to this, one for all or one for each pattern; None leaves them unchanged.
        device: recorded in the steps, one for all or one for each pattern.
        wrappers: whether names that differ only in wrappers (`module.`, `_orig_mod.` …) are considered equal.

    Raises CollisionError if two sources would be loaded into one of them, UnknownNameError if `include` matches nothing,
    and ValueError for an invalid rule or policy.

    >>> plan = match({"module.a": np.zeros(2), "module.b": np.zeros(3)}, {"a": np.ones(2), "c": np.ones(1)})
    >>> [(step.sources, step.target) for step in plan.steps], plan.missing, plan.unexpected
    ([(('module.a',), 'a')], ('c',), ('b',))
    """
    given, slots = raw_values(source), raw_values(target)
    asked = {"include": include, "exclude": exclude, "rename": rename, "dtype": dtype, "device": device}
    asked = {name: value for name, value in asked.items() if value is not None}
    asked |= {} if isinstance(mismatched, str) and mismatched == "error" else {"mismatched": mismatched}
    # The names are usually in the same order, and comparing lists is faster than comparing sets.
    same = list(given) == list(slots) or given.keys() == slots.keys()
    if same and not asked:
        # The usual load. Shapes are compared only if the report needs them: the loader compares them as well.
        return Plan(None, slots, given, find_mismatched=lambda: misfits(given, slots))
    offered, notes = _offers(given, rename if isinstance(rename, KeyMap) else KeyMap(rename), wrappers)
    selection = Selection(include, exclude)
    selection.check([*offered, *given, *slots])
    found = assign(offered, slots, selection, wrappers)
    fitting = Fitting(given, slots, chooser(mismatched), _dtypes(dtype), by_pattern(device))
    for name, offer in offered.items():
        if name in found.pairs:
            fitting.add(found.pairs[name], name, offer)
    moved = follow(found.unexpected, found.pairs)
    patterns = [
        p for some in (selection.include, selection.exclude, mismatched, dtype, device) for p in _patterns(some)
    ]
    return Plan(
        tuple(fitting.steps),
        slots,
        given,
        missing=tuple(found.missing),
        passed=tuple(
            map(Step, map(moved.get, found.unexpected, found.unexpected), map(offered.__getitem__, found.unexpected))
        ),
        excluded=tuple(found.excluded),
        skipped=tuple(fitting.skipped),
        notes=(*notes, *found.notes, *unmatched_patterns(patterns, [*given, *offered, *slots])),
        options=asked,
        find_mismatched=lambda: tuple(fitting.misfits),
    )


def _offers(given: Mapping[str, Any], rename: KeyMap, wrappers: bool) -> Resolved:
    """Return the source's tensors under their new names. A rule written for bare names also applies to wrapped ones."""
    if not rename:
        return Resolved({name: name for name in given}, [])
    seen = rename.seen(given) if wrappers else {name: name for name in given}
    return rename.resolve(seen, lambda name: spec_of(given[name]))


def _patterns(given: Any) -> tuple[str, ...]:
    """Return the patterns in a tuple, or the keys of a mapping."""
    return tuple(given) if isinstance(given, (tuple, Mapping)) else ()


def _dtypes(given: Any) -> Callable[..., DType | None]:
    """Return a function from names to the requested DType; raises ValueError for an unknown one."""
    if isinstance(given, Mapping):
        return by_pattern({pattern: _dtype(dtype) for pattern, dtype in given.items()})
    return by_pattern(None if given is None else _dtype(given))


def _dtype(given: Any) -> DType:
    """Return the DType for a name, or for a torch or NumPy dtype."""
    try:
        return find_dtype(given)
    except KeyError:
        raise ValueError(f"dtype={given!r} is not a dtype; use a name such as 'bfloat16'") from None
