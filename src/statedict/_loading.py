"""A state goes into an object: it is planned, tried, judged, and then it stands or has left no trace.

In goes an object, a source and the caller's options; out comes a LoadReport. The rule guarded: everything that can be
refused is refused while it can still be put back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from statedict.errors import LoadError
from statedict.state import Patterns, StateDict, arguments, matcher, raw_values

from . import _arrays, _sources

if TYPE_CHECKING:
    from statedict.plan import LoadReport, Plan, Suggestion
    from statedict.state import CastKind
    from statedict.tree import Cast, Host, Outcome


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

    A module whose class overrides `load_state_dict` is loaded by that method.
    `fixed`: the caller's other arguments, which a call that is suggested must have. None: suggest nothing.
    """
    from statedict import plan, tree

    host = _sources.required_host(module)
    if _sources.has_own_loader(module, host):
        return _load_by_own_method(module, host, taken, demands, options, manner)
    slots, _ = tree.peek(host, module)
    planned = plan.match(taken.state, slots, **options)
    values = _arrays.arrays_within(planned.execute(taken.state), host.library, verify=manner.verify)
    values, unknown = _without_inert(values, slots, demands)
    devices = {step.target: step.device for step in planned.steps if step.device is not None} if manner.assign else {}
    if devices and not demands.dry_run:
        values = _arrays.placed(values, devices, verify=manner.verify)
    reports: list[LoadReport] = []

    def judge(outcome: Outcome) -> None:
        unknown.told(outcome)
        reports.append(_report(planned, outcome, demands, taken))
        if demands.dry_run:
            raise _Tried
        if _is_refused(reports[0], demands.strict):
            raise LoadError("", report=reports[0])

    def advised() -> LoadReport:
        # When all is put back, so that what is suggested can be tried.
        if fixed is not None and reports[0].attempt is not None:
            _advise(reports[0], module, fixed, taken, manner)
            empty = _empty(reports[0].missing_keys, slots, values, fixed)
            trial = replace(demands, dry_run=True), options, replace(manner, assign=True)
            if empty and load_module(module, taken, *trial).ok:
                reports[0].suggestions[:0] = empty
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
    if manner.assign:
        reports[0].notes += _left_on_meta(module, slots)
    return reports[0]


def _load_by_own_method(
    module: Any, host: Host, taken: _sources.Taken, demands: Demands, options: Mapping[str, Any], manner: Manner
) -> LoadReport:
    """Load by the module's own method, which gets a dict of tensors; whatever raises, the module is put back."""
    from statedict import plan, tree

    slots = _sources.given(module)
    planned = plan.match(taken.state, slots, **options)
    values, unknown = _without_inert(planned.execute(taken.state), slots, demands)
    read: OrderedDict[str, Any] = OrderedDict(_arrays.materialized(values, host.library, verify=manner.verify))
    if values._metadata is not None:
        read._metadata = values._metadata  # type: ignore[attr-defined]
    is_lenient = not demands.strict or bool(demands.missing or demands.unexpected)
    # Only what was asked for is passed on: such a method may take no options.
    asked = {name: value for name, value, on in (("strict", False, is_lenient), ("assign", True, manner.assign)) if on}
    casts, lost = _casts(module, host, read, manner)
    undo = tree.Undo(host, module)
    undo.keep_everything()
    try:
        found = _told_by(module, read, asked)
        loaded = [name for name in read if name not in found[1]]
        outcome = tree.Outcome(demands.strict, *found, loaded=loaded, casts=casts, errors=lost)
        unknown.told(outcome)
        report = _report(planned, outcome, demands, taken)
        with suppress(_Tried):
            if demands.dry_run:
                raise _Tried
            refuse(report, type(module).__name__, demands.strict)
            return report
        undo.put_back()
    except BaseException:
        undo.put_back()
        raise
    return report


def _casts(module: Any, host: Host, state: Mapping[str, Any], manner: Manner) -> tuple[list[Cast], list[str]]:
    """The casts of the names that the module has, and an error for each that would lose elements: its own method says
    nothing of either."""
    from statedict import tree

    outcomes: list[Outcome] = []

    def judge(outcome: Outcome) -> None:
        outcomes.append(outcome)
        raise _Tried

    rules = tree.Rules(sound=True).allowing(*manner.allow_casts)
    try:
        tree.write(host, module, state, strict=False, assign=manner.assign, rules=rules, judge=judge)
    except _Tried:
        [outcome] = outcomes
        refused = [f'"{cast.name}", its elements would be lost' for cast in outcome.casts if cast.kind in rules.refused]
        return outcome.casts, [error for error in outcome.errors if any(text in error for text in refused)]
    except Exception:  # noqa: BLE001  # foreign code that takes the state only as the own method would give it
        pass
    return [], []


def _told_by(module: Any, state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The missing and unexpected names that a module's own `load_state_dict` tells of."""
    try:
        told = module.load_state_dict(state, **options)
    except RuntimeError as error:
        if str(error).startswith("Error(s) in loading"):
            raise LoadError(str(error)) from error
        raise
    return list(getattr(told, "missing_keys", ())), list(getattr(told, "unexpected_keys", ()))


def _empty(
    missing: Sequence[str], slots: Mapping[str, Any], values: StateDict, fixed: Mapping[str, Any]
) -> list[Suggestion]:
    """What would help where slots have no memory, so that nothing can be loaded into them."""
    empty = [name for name in missing if name in values and getattr(slots.get(name), "is_meta", False)]
    if not empty:
        return []
    from statedict.plan import Suggestion, written

    text = (
        f"{len(empty):,} of {len(missing):,} missing names are there, but in the model they are on the meta device, "
        "without memory (or model.to_empty(device=…) first)"
    )
    return [Suggestion(text, written({**fixed, "assign": True}), len(empty))]


def _left_on_meta(module: Any, slots: Mapping[str, Any]) -> list[str]:
    """A warning of the non-persistent buffers without memory, which no state dict has."""
    left = [name for name, value in module.named_buffers() if name not in slots and getattr(value, "is_meta", False)]
    if not left:
        return []
    more = f" and {len(left) - 5:,} more" if len(left) > 5 else ""
    return [
        f"not in the state dict, and still on the meta device, without values: {', '.join(left[:5])}{more} (non-persistent "
        "buffers: compute them again)"
    ]


@dataclass(frozen=True, slots=True)
class _Inert:
    """Entries of a state that are data of unknown classes. No object is given them, which would take them for real.

    Attributes:
        wanted: the class, by the names that the module has and the caller does not let go.
        others: names that the module does not have.
    """

    wanted: dict[str, str]
    others: list[str]

    def told(self, outcome: Outcome) -> None:
        outcome.missing = [name for name in outcome.missing if name not in self.wanted]
        outcome.errors += [unknown_class(path, name) for name, path in self.wanted.items()]
        outcome.unexpected += self.others


def _without_inert(values: StateDict, slots: Mapping[str, Any], demands: Demands) -> tuple[StateDict, _Inert]:
    """The values without the inert ones, and those."""
    inert = _arrays.inert(values)
    if not inert:
        return values, _Inert({}, [])
    allowed = matcher(demands.missing), matcher(demands.unexpected)
    wanted = {n: path for n, path in inert.items() if n in slots and not any(fits(n) for fits in allowed)}
    kept = {name: value for name, value in raw_values(values).items() if name not in inert}
    new = StateDict.adopt(kept, values._metadata, values._backend)
    return new, _Inert(wanted, [name for name in inert if name not in slots])


def unknown_class(path: str, name: str = "") -> str:
    """What is said where a state holds an inert value that an object would be given."""
    where = f"{name!r} of the source" if name else "it"
    return (
        f"{where} holds data of the unknown class {path}, which is not loaded: leave it out (exclude=, allow_missing=), or "
        f"allow the class if you trust the file: torch.serialization.add_safe_globals([{path.rpartition('.')[2]}])"
    )


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
