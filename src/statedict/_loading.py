"""A state goes into an object: it is planned, tried, judged, and then it stands or has left no trace.

In goes an object, a source and the caller's options; out comes a LoadReport. The rule guarded: everything that can be
refused is refused while it can still be put back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from statedict.errors import LoadError
from statedict.state import Patterns, arguments, raw_values

from . import _arrays, _sources

if TYPE_CHECKING:
    from statedict.plan import LoadReport, Plan
    from statedict.tree import CastKind, Outcome


@dataclass(frozen=True, slots=True)
class Demands:
    """What the caller accepts.

    Attributes:
        strict: missing and unexpected names are refused, but for the patterns that follow.
        missing, unexpected: names that may be missing, or unexpected.
        dry_run: everything is refused, in the end.
    """

    strict: bool
    missing: Patterns
    unexpected: Patterns
    dry_run: bool


class _Tried(Exception):  # no error: it makes the engine put everything back after a dry run
    pass


@dataclass(frozen=True, slots=True)
class Manner:
    """How tensors go in.

    Attributes:
        assign: the tensors themselves take the parameters' places.
        allow_casts: kinds of lossy cast that are no errors.
        verify: checksums are settled before the first byte lands.
    """

    assign: bool = False
    allow_casts: tuple[CastKind, ...] = ()
    verify: bool = True


def manner(assign: bool, allow_casts: str | Sequence[str], verify: bool) -> Manner:
    """A Manner of the caller's options; raises ValueError for a kind of cast that there is not."""
    given = arguments.patterns("allow_casts", allow_casts)
    if not given:
        return Manner(assign, (), verify)
    from statedict.tree import SOUND

    kinds = (given,) if isinstance(given, str) else given
    known: dict[str, CastKind] = {kind: kind for kind in SOUND.refused}
    for kind in kinds:
        if kind not in known:
            raise ValueError(
                f"allow_casts: {kind!r} is no kind of lossy cast; they are {', '.join(map(repr, sorted(known)))}"
            )
    return Manner(assign, tuple(known[kind] for kind in kinds), verify)


def _says_something(value: Any) -> bool:
    """Whether an option was given: not every value has a truth."""
    return not (value is None or value is False or (isinstance(value, (str, list, tuple, Mapping)) and not value))


def check_devices(given: Any) -> None:
    """Raise TypeError for what is not a device, nor a mapping of patterns to devices."""
    for device in given.values() if isinstance(given, Mapping) else (given,):
        if device is not None and not isinstance(device, str) and type(device).__name__ != "device":
            raise TypeError(f"device= is a device such as 'cuda:0', not {arguments.described(device)}")


def refuse_options(obj: Any, **options: Any) -> None:
    """Raise TypeError for an option that means nothing for `obj`: left alone, it would be silently ignored."""
    said = [f"{name}=" for name, value in options.items() if _says_something(value)]
    if said:
        raise TypeError(f"{', '.join(said)} cannot be given for a {type(obj).__name__}")


def load_module(
    module: Any,
    taken: _sources.Taken,
    demands: Demands,
    options: Mapping[str, Any],
    manner: Manner,
    fixed: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Load a state into a module of any host; `options` are those of `plan.match`.

    `fixed`: the caller's other arguments, which a call that is suggested must have. None: suggest nothing.
    """
    from statedict import plan, tree

    host = _sources.required_host(module)
    slots, _ = tree.peek(host, module)
    planned = plan.match(taken.state, slots, **options)
    values = _arrays.arrays_within(planned.execute(taken.state), host.library, verify=manner.verify)
    devices = {step.target: step.device for step in planned.steps if step.device is not None} if manner.assign else {}
    if devices and not demands.dry_run:
        values = _arrays.placed(values, devices, verify=manner.verify)
    reports: list[LoadReport] = []

    def judge(outcome: Outcome) -> None:
        reports.append(_report(planned, outcome, demands, taken))
        if demands.dry_run:
            raise _Tried
        if _is_refused(reports[0], demands.strict):
            raise LoadError("", report=reports[0])

    def advised() -> LoadReport:
        # When all is put back, so that what is suggested can be tried.
        if fixed is not None and reports[0].attempt is not None:
            _advise(reports[0], module, fixed, taken, manner)
        return reports[0]

    rules = tree.Rules(sound=True, verify=manner.verify).allowing(*manner.allow_casts)
    try:
        tree.write(host, module, values, strict=demands.strict, assign=manner.assign, rules=rules, judge=judge)
    except _Tried:
        return advised()
    except LoadError as error:
        if reports and error.report is reports[0]:
            error.args = (plan.error_text(type(module).__name__, advised()),)
        raise
    return reports[0]


def load_stateful(obj: Any, state: Any, demands: Demands, *, model: Any, dtype: Any, verify: bool) -> LoadReport:
    """Load a nested state into an optimizer, a scheduler, or anything else that takes one."""
    from statedict.plan import LoadReport

    reports: list[LoadReport] = []

    def judge(outcome: Outcome) -> None:
        report = LoadReport(
            outcome.missing, outcome.unexpected, loaded=outcome.loaded, errors=outcome.errors, cast=outcome.casts
        )
        reports.append(report.allowing(missing=demands.missing, unexpected=demands.unexpected))
        if demands.dry_run:
            raise _Tried
        refuse(reports[0], type(obj).__name__, demands.strict)

    with suppress(_Tried):
        _sources.write_nested(obj, state, model=model, strict=demands.strict, dtype=dtype, verify=verify, judge=judge)
    return reports[0]


def _report(planned: Plan, outcome: Outcome, demands: Demands, taken: _sources.Taken) -> LoadReport:
    report = planned.report(
        missing=outcome.missing,
        unexpected=outcome.unexpected,
        loaded=outcome.loaded,
        cast=outcome.casts,
        errors=outcome.errors,
        tied=outcome.tied,
    )
    report.root, report.other_roots = taken.root, list(taken.others)
    return report.allowing(missing=demands.missing, unexpected=demands.unexpected)


def _advise(report: LoadReport, module: Any, fixed: Mapping[str, Any], taken: _sources.Taken, manner: Manner) -> None:
    """Put into the report what would help; each suggestion was loaded, and undone."""
    from statedict.plan import facts

    def works(arguments: Mapping[str, Any]) -> bool:
        options = {name: value for name, value in arguments.items() if name not in fixed}
        root, into = options.pop("root", None), options.pop("into", None)
        demands = Demands(True, options.pop("allow_missing", ()), options.pop("allow_unexpected", ()), dry_run=True)
        source = taken.others.get(root, taken.state)
        try:
            with _sources.taken(source, "auto" if root is None or root in taken.others else root) as other:
                return load_module(_sources.submodule(module, into), other, demands, options, manner).ok
        except Exception:  # noqa: BLE001  # foreign hooks raise anything, which must not hide why the load was refused
            return False

    report.advise(works, fixed, {path: facts(raw_values(state)) for path, state in taken.others.items()})


def refuse(report: LoadReport, kind: str, strict: bool) -> None:
    """Raise LoadError where a load with this report into an object of class `kind` cannot stand."""
    if _is_refused(report, strict):
        from statedict.plan import error_text

        raise LoadError(error_text(kind, report), report=report)


def _is_refused(report: LoadReport, strict: bool) -> bool:
    return bool(report.errors or report.mismatched or (strict and not report.ok))
