"""Load a state into an object: plan, try, then commit or roll back.

Takes an object, a source and the caller's options; returns a LoadReport. Every check that can refuse a load runs while the
object can still be restored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from statedict.errors import LoadError
from statedict.state import Patterns, StateDict, arguments, matcher, raw_values

from . import _arrays, _sources

if TYPE_CHECKING:
    from statedict.plan import LoadReport, Plan, Suggestion
    from statedict.state import CastKind
    from statedict.tree import Cast, Host, JointLoad, Outcome


@dataclass(frozen=True, slots=True)
class Strictness:
    """Which loads the caller accepts.

    Attributes:
        strict: refuse missing and unexpected names, except those that match the patterns below.
        missing, unexpected: patterns for names that may be missing, or unexpected.
        dry_run: report only; the load is always undone.
    """

    strict: bool
    missing: Patterns
    unexpected: Patterns
    dry_run: bool


class _DryRunDone(Exception):
    """Not an error: makes the engine restore the object after a dry run."""


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How tensors are transferred into a module.

    Attributes:
        assign: replace the parameters instead of copying into them.
        allow_casts: kinds of lossy cast that are allowed.
        verify: verify checksums before the first byte is written.
    """

    assign: bool = False
    allow_casts: tuple[CastKind, ...] = ()
    verify: bool = True


def transfer_options(assign: bool, allow_casts: str | Sequence[str], verify: bool) -> TransferOptions:
    """Return the caller's TransferOptions; raises ValueError for an unknown kind of cast."""
    given = arguments.patterns("allow_casts", allow_casts)
    if not given:
        return TransferOptions(assign, (), verify)
    from statedict.tree import SOUND

    kinds = (given,) if isinstance(given, str) else given
    known: dict[str, CastKind] = {kind: kind for kind in SOUND.refused}
    for kind in kinds:
        if kind not in known:
            raise ValueError(
                f"allow_casts: {kind!r} is not a kind of lossy cast; use one of {', '.join(map(repr, sorted(known)))}"
            )
    return TransferOptions(assign, tuple(known[kind] for kind in kinds), verify)


def _is_given(value: Any) -> bool:
    """Whether an option was given. Values such as arrays have no truth value, so `bool` cannot be used."""
    return not (value is None or value is False or (isinstance(value, (str, list, tuple, Mapping)) and not value))


def check_devices(given: Any) -> None:
    """Raise TypeError unless the value is a device or a mapping from patterns to devices."""
    for device in given.values() if isinstance(given, Mapping) else (given,):
        if device is not None and not isinstance(device, str) and type(device).__name__ != "device":
            raise TypeError(f"device= must be a device such as 'cuda:0', not {arguments.described(device)}")


def refuse_options(obj: Any, **options: Any) -> None:
    """Raise TypeError for options that do not apply to `obj` and would otherwise be silently ignored."""
    given = [f"{name}=" for name, value in options.items() if _is_given(value)]
    if given:
        raise TypeError(f"{', '.join(given)} cannot be used with {arguments.a(obj)}")


def together(obj: Any, *, dry_run: bool) -> AbstractContextManager[JointLoad | None]:
    """The joint load of an object of which several processes hold parts; None for all others, and for a dry run."""
    # `is True`: the argument has not been checked; a wrong one is refused inside of the joint load.
    host = None if dry_run is True else _sources.host_of(obj)
    joint = None if host is None else host.together(obj)
    return nullcontext() if joint is None else joint


def load_module(
    module: Any,
    resolved: _sources.ResolvedSource,
    accepted: Strictness,
    options: Mapping[str, Any],
    transfer: TransferOptions,
    fixed: Mapping[str, Any] | None = None,
    together: JointLoad | None = None,
) -> LoadReport:
    """Load a state into a module of any module system; `options` are those of `plan.match`.

    A module whose class overrides `load_state_dict` is loaded with its own method.
    `fixed`: the caller's other arguments, which every suggested call must repeat. None: suggest nothing.
    `together`: the joint load of several processes, which this one is part of.
    """
    from statedict import plan, tree

    host = _sources.required_host(module)
    if _sources.has_own_loader(module, host):
        return _load_with_own_method(module, host, resolved, accepted, options, transfer, together)
    slots, _ = tree.peek(host, module)
    planned = plan.match(resolved.state, slots, **options)
    values = _arrays.arrays_within(planned.execute(resolved.state), host.library, verify=transfer.verify)
    values, unknown = _without_inert(values, slots, accepted)
    devices = {step.target: step.device for step in planned.steps if step.device is not None} if transfer.assign else {}
    if devices and not accepted.dry_run:
        values = _arrays.placed(values, devices, verify=transfer.verify)
    reports: list[LoadReport] = []

    def judge(outcome: Outcome) -> None:
        unknown.add_to(outcome)
        reports.append(_report(planned, outcome, accepted, resolved))
        if accepted.dry_run:
            raise _DryRunDone
        if _is_refused(reports[0], accepted.strict):
            raise LoadError("", report=reports[0])

    def advised() -> LoadReport:
        # Called after the module was restored, so that each suggestion can be tried.
        if fixed is not None and reports[0].attempt is not None:
            _advise(reports[0], module, fixed, resolved, transfer)
            empty = _empty(reports[0].missing_keys, slots, values, fixed)
            trial = replace(accepted, dry_run=True), options, replace(transfer, assign=True)
            if empty and load_module(module, resolved, *trial).ok:
                reports[0].suggestions[:0] = empty
        return reports[0]

    rules = tree.Rules(sound=True, verify=transfer.verify, together=together).allowing(*transfer.allow_casts)
    try:
        tree.write(host, module, values, strict=accepted.strict, assign=transfer.assign, rules=rules, judge=judge)
    except _DryRunDone:
        return advised()
    except LoadError as error:
        if reports and error.report is reports[0]:
            error.args = (plan.error_text(type(module).__name__, advised()),)
        raise
    if transfer.assign:
        reports[0].notes += _left_on_meta(module, slots)
    return reports[0]


def _load_with_own_method(
    module: Any,
    host: Host,
    resolved: _sources.ResolvedSource,
    accepted: Strictness,
    options: Mapping[str, Any],
    transfer: TransferOptions,
    together: JointLoad | None,
) -> LoadReport:
    """Load with the module's own method, which gets a dict of tensors; the module is restored if anything raises."""
    from statedict import plan, tree

    slots = _sources.given(module)
    planned = plan.match(resolved.state, slots, **options)
    values, unknown = _without_inert(planned.execute(resolved.state), slots, accepted)
    read: OrderedDict[str, Any] = OrderedDict(_arrays.materialized(values, host.library, verify=transfer.verify))
    if values._metadata is not None:
        read._metadata = values._metadata  # type: ignore[attr-defined]
    is_lenient = not accepted.strict or bool(accepted.missing or accepted.unexpected)
    # The module's own method may not accept these options, so only those that were given are passed on.
    asked = {
        name: value for name, value, on in (("strict", False, is_lenient), ("assign", True, transfer.assign)) if on
    }
    casts, lost = _casts(module, host, read, transfer)
    rollback = tree.Rollback(host, module)
    rollback.keep_everything()
    try:
        found = _load_by_own_method(module, read, asked)
        loaded = [name for name in read if name not in found[1]]
        outcome = tree.Outcome(accepted.strict, *found, loaded=loaded, casts=casts, errors=lost)
        unknown.add_to(outcome)
        report = _report(planned, outcome, accepted, resolved)
        with suppress(_DryRunDone):
            if accepted.dry_run:
                raise _DryRunDone
            refuse(report, type(module).__name__, accepted.strict)
            if together is not None:
                together.agree()
            return report
        rollback.roll_back()
    except BaseException:
        rollback.roll_back()
        raise
    return report


def _casts(
    module: Any, host: Host, state: Mapping[str, Any], transfer: TransferOptions
) -> tuple[list[Cast], list[str]]:
    """Return the casts of the names that the module has, and an error for each that would lose elements: the module's
    own method reports neither."""
    from statedict import tree

    outcomes: list[Outcome] = []

    def judge(outcome: Outcome) -> None:
        outcomes.append(outcome)
        raise _DryRunDone

    rules = tree.Rules(sound=True).allowing(*transfer.allow_casts)
    try:
        tree.write(host, module, state, strict=False, assign=transfer.assign, rules=rules, judge=judge)
    except _DryRunDone:
        [outcome] = outcomes
        refused = [f'"{cast.name}", its elements would be lost' for cast in outcome.casts if cast.kind in rules.refused]
        return outcome.casts, [error for error in outcome.errors if any(text in error for text in refused)]
    except Exception:  # noqa: BLE001  # foreign code may accept the state only in the form that its own method passes on
        pass
    return [], []


def _load_by_own_method(
    module: Any, state: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Call a module's own `load_state_dict`; return the missing and unexpected names that it reports."""
    try:
        result = module.load_state_dict(state, **options)
    except RuntimeError as error:
        if str(error).startswith("Error(s) in loading"):
            raise LoadError(str(error)) from error
        raise
    return list(getattr(result, "missing_keys", ())), list(getattr(result, "unexpected_keys", ()))


def _empty(
    missing: Sequence[str], slots: Mapping[str, Any], values: StateDict, fixed: Mapping[str, Any]
) -> list[Suggestion]:
    """Suggest `assign=True` for parameters on the meta device, which have no memory to load into."""
    empty = [name for name in missing if name in values and getattr(slots.get(name), "is_meta", False)]
    if not empty:
        return []
    from statedict.plan import Suggestion, call_text

    text = (
        f"{len(empty):,} of {len(missing):,} missing names are in the source, but the model's tensors are on the meta "
        "device, without memory (or call model.to_empty(device=…) first)"
    )
    return [Suggestion(text, call_text({**fixed, "assign": True}), len(empty))]


def _left_on_meta(module: Any, slots: Mapping[str, Any]) -> list[str]:
    """Warn about non-persistent buffers that are still on the meta device: a state dict does not contain them."""
    left = [name for name, value in module.named_buffers() if name not in slots and getattr(value, "is_meta", False)]
    if not left:
        return []
    more = f" and {len(left) - 5:,} more" if len(left) > 5 else ""
    return [
        f"still on the meta device, without values: {', '.join(left[:5])}{more} (non-persistent buffers are not in a state "
        "dict: compute them again)"
    ]


@dataclass(frozen=True, slots=True)
class _Inert:
    """Entries of a state that are data of unknown classes. They are never loaded into an object.

    Attributes:
        wanted: the class by name, for the names that the module has and the caller did not allow to be missing.
        others: names that the module does not have.
    """

    wanted: dict[str, str]
    others: list[str]

    def add_to(self, outcome: Outcome) -> None:
        """Report these entries in `outcome`."""
        outcome.missing = [name for name in outcome.missing if name not in self.wanted]
        outcome.errors += [unknown_class(path, name) for name, path in self.wanted.items()]
        outcome.unexpected += self.others


def _without_inert(values: StateDict, slots: Mapping[str, Any], accepted: Strictness) -> tuple[StateDict, _Inert]:
    """Split off the entries that hold data of unknown classes."""
    inert = _arrays.inert(values)
    if not inert:
        return values, _Inert({}, [])
    allowed = matcher(accepted.missing), matcher(accepted.unexpected)
    wanted = {n: path for n, path in inert.items() if n in slots and not any(fits(n) for fits in allowed)}
    kept = {name: value for name, value in raw_values(values).items() if name not in inert}
    new = StateDict.adopt(kept, values._metadata, values._backend)
    return new, _Inert(wanted, [name for name in inert if name not in slots])


def unknown_class(path: str, name: str = "") -> str:
    """Return the error text for an entry of an unknown class."""
    where = f"{name!r} in the source" if name else "the source"
    return (
        f"{where} holds data of the unknown class {path}, which is not loaded: exclude it (exclude=, allow_missing=), or, "
        f"if you trust the file, allow the class: torch.serialization.add_safe_globals([{path.rpartition('.')[2]}])"
    )


def load_stateful(obj: Any, state: Any, accepted: Strictness, *, model: Any, dtype: Any, verify: bool) -> LoadReport:
    """Load a nested state into an optimizer, a scheduler, or another object with `load_state_dict`."""
    from statedict.plan import LoadReport

    reports: list[LoadReport] = []

    def judge(outcome: Outcome) -> None:
        report = LoadReport(
            outcome.missing, outcome.unexpected, loaded=outcome.loaded, errors=outcome.errors, cast=outcome.casts
        )
        reports.append(report.allowing(missing=accepted.missing, unexpected=accepted.unexpected))
        if accepted.dry_run:
            raise _DryRunDone
        refuse(reports[0], type(obj).__name__, accepted.strict)

    with suppress(_DryRunDone):
        _sources.write_nested(obj, state, model=model, strict=accepted.strict, dtype=dtype, verify=verify, judge=judge)
    return reports[0]


def _report(planned: Plan, outcome: Outcome, accepted: Strictness, resolved: _sources.ResolvedSource) -> LoadReport:
    report = planned.report(
        missing=outcome.missing,
        unexpected=outcome.unexpected,
        loaded=outcome.loaded,
        cast=outcome.casts,
        errors=outcome.errors,
        tied=outcome.tied,
    )
    report.root, report.other_roots = resolved.root, list(resolved.others)
    return report.allowing(missing=accepted.missing, unexpected=accepted.unexpected)


def _advise(
    report: LoadReport,
    module: Any,
    fixed: Mapping[str, Any],
    resolved: _sources.ResolvedSource,
    transfer: TransferOptions,
) -> None:
    """Add suggestions to the report. Each was tried as a dry run and works."""
    from statedict.plan import tensor_info

    def works(arguments: Mapping[str, Any]) -> bool:
        options = {name: value for name, value in arguments.items() if name not in fixed}
        root, into = options.pop("root", None), options.pop("into", None)
        accepted = Strictness(True, options.pop("allow_missing", ()), options.pop("allow_unexpected", ()), dry_run=True)
        source = resolved.others.get(root, resolved.state)
        try:
            with _sources.resolved(source, "auto" if root is None or root in resolved.others else root) as other:
                return load_module(_sources.submodule(module, into), other, accepted, options, transfer).ok
        except Exception:  # noqa: BLE001  # hooks may raise anything, which must not hide why the load was refused
            return False

    report.advise(works, fixed, {path: tensor_info(raw_values(state)) for path, state in resolved.others.items()})


def refuse(report: LoadReport, kind: str, strict: bool) -> None:
    """Raise LoadError if this report says that a load into an object of class `kind` has failed."""
    if _is_refused(report, strict):
        from statedict.plan import error_text

        raise LoadError(error_text(kind, report), report=report)


def _is_refused(report: LoadReport, strict: bool) -> bool:
    return bool(report.errors or report.mismatched or (strict and not report.ok))
