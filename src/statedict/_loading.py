"""Load a state into a module: plan, try, then commit or roll back.

Takes a module, a source and the caller's options; returns a LoadReport. Every check that can refuse a load runs while the
module can still be restored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from statedict.errors import LoadError
from statedict.state import Patterns, arguments, raw_values

from . import _arrays, _sources

if TYPE_CHECKING:
    from statedict.plan import LoadReport, Plan, Proposal
    from statedict.state import CastKind
    from statedict.tree import Cast, Host, JointLoad, Outcome, Rules


class Undo(Exception):
    """Not an error: makes the engine restore the object after a dry run, or after a load that is refused."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller of a load asks for.

    Attributes:
        strict: refuse missing and unexpected names, except those that match the patterns below.
        missing, unexpected: patterns for names that may be missing, or unexpected.
        dry_run: report only; the load is always undone.
        verify: verify checksums before the first byte is written.
        assign: replace the parameters instead of copying into them.
        allow_casts: kinds of lossy cast that are allowed.
        options: the arguments of `plan.match`.
        fixed: further arguments, which every suggested call must repeat. None: suggest nothing.
        together: the joint load of several processes, which this one is part of.
    """

    strict: bool
    missing: Patterns
    unexpected: Patterns
    dry_run: bool
    verify: bool
    assign: bool = False
    allow_casts: tuple[CastKind, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] | None = None
    together: JointLoad | None = None

    @property
    def allowed(self) -> tuple[Patterns, Patterns]:
        """The patterns for names that may be missing, and for those that may be unexpected."""
        return self.missing, self.unexpected

    @property
    def rules(self) -> Rules:
        """The rules of the engine for this load."""
        from statedict.tree import Rules

        return Rules(sound=True, verify=self.verify, together=self.together).allowing(*self.allow_casts)

    def require(self, report: LoadReport) -> None:
        """Raise Undo for a dry run, and if the report says that the load has failed."""
        if self.dry_run or _is_refused(report, self.strict):
            raise Undo

    def conclude(self, report: LoadReport, obj: object) -> LoadReport:
        """Return the report; raise LoadError if it says that the load into `obj` has failed, except for a dry run."""
        if not self.dry_run:
            refuse(report, type(obj).__name__, self.strict)
        return report


def lossy_casts(given: str | Sequence[str]) -> tuple[CastKind, ...]:
    """Return the kinds of cast that are allowed; raises ValueError for an unknown one."""
    kinds = arguments.patterns("allow_casts", given)
    if not kinds:
        return ()
    from statedict.tree import SOUND

    known: dict[str, CastKind] = {kind: kind for kind in SOUND.refused}
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    for kind in kinds:
        if kind not in known:
            raise ValueError(
                f"allow_casts: {kind!r} is not a kind of lossy cast; use one of {', '.join(map(repr, sorted(known)))}"
            )
    return tuple(known[kind] for kind in kinds)


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
    """Return the joint load of an object of which several processes hold parts; None for all others, and for a dry run."""
    # `is True`: the argument has not been checked; a wrong one is refused inside of the joint load.
    joint = None if dry_run is True else _joint(obj)
    return nullcontext() if joint is None else joint


def _joint(obj: Any) -> JointLoad | None:
    if _sources.is_torch_optimizer(obj):
        from statedict.torch import joint_optimizer

        return joint_optimizer(obj)
    host = _sources.host_of(obj)
    return None if host is None else host.together(obj)


def _is_given(value: Any) -> bool:
    """Whether an option was given. Values such as arrays have no truth value, so `bool` cannot be used."""
    return not (value is None or value is False or (isinstance(value, (str, list, tuple, Mapping)) and not value))


def load_module(module: Any, resolved: _sources.ResolvedSource, request: Request) -> LoadReport:
    """Load a state into a module of any module system.

    A module whose class overrides `load_state_dict` is loaded with its own method.
    """
    from statedict import formats, plan, tree

    from . import _inert

    host = _sources.required_host(module)
    resolved = resolved._replace(state=formats.with_torchao_tensors(resolved.state))
    if _sources.has_own_loader(module, host):
        return _load_with_own_method(module, host, resolved, request)
    slots, _ = tree.peek(host, module)
    planned = plan.match(resolved.state, slots, **request.options)
    values, inert = _inert.split(
        planned.execute(resolved.state), slots, request.allowed, host.library, verify=request.verify
    )
    devices = (
        {step.target: step.device for step in planned.fills or () if step.device is not None} if request.assign else {}
    )
    if devices and not request.dry_run:
        values = _arrays.placed(values, devices, verify=request.verify)
    reports: list[LoadReport] = []

    def judge(outcome: Outcome) -> None:
        inert.add_to(outcome)
        reports.append(_report(planned, outcome, request, resolved))
        request.require(reports[0])

    with inert.explain(type(module).__name__), suppress(Undo):
        tree.write(host, module, values, strict=request.strict, assign=request.assign, rules=request.rules, judge=judge)
        reports[0].notes += _left_on_meta(module, slots) if request.assign else []
        return reports[0]
    # The module was restored, so each suggestion can be tried.
    if request.fixed is not None and reports[0].attempt is not None:
        on_meta = [n for n in reports[0].missing if n in values and getattr(slots.get(n), "is_meta", False)]
        _advise(reports[0], module, resolved, request, planned, len(on_meta))
    return request.conclude(reports[0], module)


def _load_with_own_method(module: Any, host: Host, resolved: _sources.ResolvedSource, request: Request) -> LoadReport:
    """Load with the module's own method, which gets a dict of tensors; the module is restored if anything raises."""
    from statedict import plan, tree

    from . import _inert

    slots = _sources.given(module)
    planned = plan.match(resolved.state, slots, **request.options)
    values, inert = _inert.split(
        planned.execute(resolved.state), slots, request.allowed, host.library, verify=request.verify
    )
    read: OrderedDict[str, Any] = OrderedDict(_arrays.materialized(values, host.library, verify=request.verify))
    if values._metadata is not None:
        read._metadata = values._metadata  # type: ignore[attr-defined]
    # The module's own method may not accept these options, so only those that are needed are passed on.
    is_lenient = not request.strict or bool(request.missing or request.unexpected)
    asked = ({"strict": False} if is_lenient else {}) | ({"assign": True} if request.assign else {})
    casts, lost = _casts(module, host, read, request)
    rollback = tree.Rollback(host, module)
    rollback.keep_everything()
    reports: list[LoadReport] = []
    with inert.explain(type(module).__name__), suppress(Undo):
        try:
            found = _load_by_own_method(module, read, asked)
            loaded = [name for name in read if name not in found[1]]
            outcome = tree.Outcome(request.strict, *found, loaded=loaded, casts=casts, errors=lost)
            inert.add_to(outcome)
            reports.append(_report(planned, outcome, request, resolved))
            request.require(reports[0])
            if request.together is not None:
                request.together.agree()
        except BaseException:
            rollback.roll_back()
            raise
    return request.conclude(reports[0], module)


def _casts(module: Any, host: Host, state: Mapping[str, Any], request: Request) -> tuple[list[Cast], list[str]]:
    """Return the casts of the names that the module has, and an error for each that would lose elements: the module's
    own method reports neither."""
    from statedict import tree

    outcomes: list[Outcome] = []

    def judge(outcome: Outcome) -> None:
        outcomes.append(outcome)
        raise Undo

    rules = request.rules
    # Foreign code may accept the state only in the form that the module's own method passes on.
    with suppress(Exception):
        tree.write(host, module, state, strict=False, assign=request.assign, rules=rules, judge=judge)
    if not outcomes:
        return [], []
    casts = outcomes[0].casts
    refused = [f'"{cast.name}": casting ' for cast in casts if cast.kind in rules.refused]
    return casts, [error for error in outcomes[0].errors if any(text in error for text in refused)]


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


def _left_on_meta(module: Any, slots: Mapping[str, Any]) -> list[str]:
    """Return a note about non-persistent buffers that are still on the meta device: a state dict does not contain them."""
    left = [name for name, value in module.named_buffers() if name not in slots and getattr(value, "is_meta", False)]
    if not left:
        return []
    more = f" and {len(left) - 5:,} more" if len(left) > 5 else ""
    return [
        f"still on the meta device, without values: {', '.join(left[:5])}{more} (non-persistent buffers are not in a state "
        "dict: compute them again)"
    ]


def _report(planned: Plan, outcome: Outcome, request: Request, resolved: _sources.ResolvedSource) -> LoadReport:
    report = planned.report(
        missing=outcome.missing,
        unexpected=outcome.unexpected,
        loaded=outcome.loaded,
        cast=outcome.casts,
        errors=outcome.errors,
        tied=outcome.tied,
        advised=request.fixed is not None,
    )
    report.root, report.other_roots, report.dry_run = resolved.root, list(resolved.others), request.dry_run
    return report.allowing(missing=request.missing, unexpected=request.unexpected)


def _advise(
    report: LoadReport,
    module: Any,
    resolved: _sources.ResolvedSource,
    request: Request,
    planned: Plan,
    on_meta: int,
) -> None:
    """Add suggestions to the report. Each was tried as a dry run and works.

    `on_meta`: the number of missing parameters that are in the source, but have no memory to load into.
    """
    from statedict.plan import Suggestion, call_text, tensor_info

    trial, fixed = replace(request, dry_run=True, fixed=None), request.fixed or {}

    def works(arguments: Mapping[str, Any]) -> bool:
        options = {name: value for name, value in arguments.items() if name not in fixed}
        root, into = options.pop("root", None), options.pop("into", None)
        missing, unexpected = options.pop("allow_missing", ()), options.pop("allow_unexpected", ())
        if root is None is into and options == planned.options and not any(request.allowed):
            return report.allowing(missing=missing, unexpected=unexpected).ok  # this load was the trial
        asked = replace(trial, strict=True, missing=missing, unexpected=unexpected, options=options)
        source = resolved.others.get(root, resolved.state)
        try:
            with _sources.resolved(source, "auto" if root is None or root in resolved.others else root) as other:
                return load_module(_sources.submodule(module, into), other, asked).ok
        except Exception:  # noqa: BLE001  # hooks may raise anything, which must not hide why the load was refused
            return False

    roots = {path: tensor_info(raw_values(state)) for path, state in resolved.others.items()}
    report.advise(works, fixed, roots, [] if "into" in fixed else _known(module))
    if on_meta and load_module(module, resolved, replace(trial, assign=True)).ok:
        text = (
            f"{on_meta:,} of {len(report.missing):,} missing names are in the source, but the model's tensors are on the "
            "meta device, without memory (or call model.to_empty(device=…) first)"
        )
        report.suggestions.insert(0, Suggestion(text, call_text({**fixed, "assign": True}), on_meta))


def _known(module: Any) -> list[Proposal]:
    """Propose the conversion that transformers makes, if the module is one of its models."""
    from statedict import maps
    from statedict.plan import Proposal

    if not any(kind.__module__ == "transformers.modeling_utils" for kind in type(module).__mro__):
        return []
    try:
        names = maps.conversion(module)
    except Exception:  # noqa: BLE001  # another version of transformers must not hide why the load was refused
        return []
    return [Proposal("transformers converts its files when it loads them; this does the same", {"rename": names})]


def refuse(report: LoadReport, kind: str, strict: bool, how: str = "") -> None:
    """Raise LoadError if this report says that a load into an object of class `kind` has failed.

    `how` says how to make the suggested calls, if `load_state_dict` was not called by the user.
    """
    if _is_refused(report, strict):
        from statedict.plan import error_text

        advice = f"\n  {how}" if how and report.suggestions else ""
        raise LoadError(error_text(kind, report) + advice, report=report)


def _is_refused(report: LoadReport, strict: bool) -> bool:
    return bool(report.errors or report.mismatched or (strict and not report.ok))
