"""Load a state into a module: plan, try, then commit or roll back.

Takes a module, a source and the caller's request; returns a LoadReport. Every check that can refuse a load runs while the
module can still be restored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from statedict.errors import LoadError, MapError, StateDictError
from statedict.state import few, raw_values

from . import _arrays, _request, _sources

if TYPE_CHECKING:
    from statedict.formats import Limits
    from statedict.plan import LoadReport, Plan, Proposal, Suggestion
    from statedict.state import StateDict
    from statedict.tree import Cast, Host, Outcome

    from . import _inert


def load_into(
    obj: Any, source: Any, root: str, request: _request.Request, into: str | None, limits: Limits | None
) -> LoadReport:
    """Load the state at `root` in a source into a module, or into its submodule at the path `into`."""
    module = _sources.submodule(obj, into)
    _request.check_devices(request.options["device"])
    fixed = {"into": into or None, "root": None if root == "auto" else root, "assign": request.assign or None}
    request = replace(request, fixed={name: value for name, value in fixed.items() if value is not None})
    with _sources.resolved(source, root, limits) as resolved:
        return load_module(module, resolved, request)


def load_module(module: Any, resolved: _sources.ResolvedSource, request: _request.Request) -> LoadReport:
    """Load a state into a module of any module system.

    A module whose class overrides `load_state_dict` is loaded with its own method.
    """
    from statedict import formats, tree

    host = _sources.required_host(module)
    resolved = resolved._replace(state=formats.with_torchao_tensors(resolved.state))
    if _sources.has_own_loader(module, host):
        return _load_with_own_method(module, host, resolved, request)
    slots, _ = tree.peek(host, module)
    planned, values, inert = _planned(resolved, slots, host, request)
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

    with inert.explain(type(module).__name__), suppress(_request.Undo):
        tree.write(host, module, values, strict=request.strict, assign=request.assign, rules=request.rules, judge=judge)
        reports[0].notes += _left_on_meta(module, slots) if request.assign else []
        return reports[0]
    # The module was restored, so each suggestion can be tried.
    if request.fixed is not None and reports[0].attempt is not None:
        on_meta = [n for n in reports[0].missing if n in values and getattr(slots.get(n), "is_meta", False)]
        _advise(reports[0], module, resolved, request, planned, len(on_meta))
    return request.conclude(reports[0], module)


def _planned(
    resolved: _sources.ResolvedSource, slots: Mapping[str, Any], host: Host, request: _request.Request
) -> tuple[Plan, StateDict, _inert.Inert]:
    """Match the state to the slots: the plan, the values to load, and the entries that are data of unknown classes."""
    from statedict import plan

    from . import _inert

    planned = plan.match(resolved.state, slots, **request.options)
    values = planned.execute(resolved.state)
    return planned, *_inert.split(values, slots, request.allowed, host.library, verify=request.verify)


def _load_with_own_method(
    module: Any, host: Host, resolved: _sources.ResolvedSource, request: _request.Request
) -> LoadReport:
    """Load with the module's own method, which gets a dict of tensors; the module is restored if anything raises."""
    from statedict import tree

    slots = _sources.given(module)
    planned, values, inert = _planned(resolved, slots, host, request)
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
    with inert.explain(type(module).__name__), suppress(_request.Undo):
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


def _casts(
    module: Any, host: Host, state: Mapping[str, Any], request: _request.Request
) -> tuple[list[Cast], list[str]]:
    """Return the casts of the names that the module has, and an error for each that would lose elements: the module's
    own method reports neither."""
    from statedict import tree

    outcomes: list[Outcome] = []

    def judge(outcome: Outcome) -> None:
        outcomes.append(outcome)
        raise _request.Undo

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
    return [
        f"still on the meta device, without values: {few(left)} (non-persistent buffers are not in a state "
        "dict: compute them again)"
    ]


def _report(
    planned: Plan, outcome: Outcome, request: _request.Request, resolved: _sources.ResolvedSource
) -> LoadReport:
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
    request: _request.Request,
    planned: Plan,
    on_meta: int,
) -> None:
    """Add suggestions to the report. Each was tried as a dry run and works.

    `on_meta`: the number of missing parameters that are in the source, but have no memory to load into.
    """
    from statedict.plan import tensor_info

    trial, fixed = replace(request, dry_run=True, fixed=None), request.fixed or {}
    if any(getattr(value, "is_meta", False) for value in planned.slots.values()):
        # Tensors without memory can only be replaced.
        trial, fixed = replace(trial, assign=True), {**fixed, "assign": True}
        if on_meta and load_module(module, resolved, trial).ok:
            report.suggestions = _replacing(report, fixed, on_meta)
            return

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

    known = [] if "into" in fixed else _known(module)
    for proposal in known:
        if report.missing and report.unexpected and (reason := _inapplicable(proposal, planned)):
            report.notes.append(reason)
            report.suggestions = []  # they would be guesses
            return
    roots = {path: tensor_info(raw_values(state)) for path, state in resolved.others.items()}
    report.advise(works, fixed, roots, known)


def _replacing(report: LoadReport, fixed: Mapping[str, Any], on_meta: int) -> list[Suggestion]:
    """Suggest to replace the tensors of a model that is on the meta device."""
    from statedict.plan import Suggestion, call_text

    text = (
        f"{on_meta:,} of {len(report.missing):,} missing names are in the source, but the model's tensors are on the "
        "meta device, without memory (or call model.to_empty(device=…) first)"
    )
    arguments = replace(report.attempt, fixed=fixed).needed({}) if report.attempt is not None else fixed
    return [Suggestion(text, call_text(arguments), on_meta)]


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


def _inapplicable(known: Proposal, planned: Plan) -> str | None:
    """Return why a conversion cannot be applied, although it is for these names; None if it can."""
    from statedict.plan import match

    try:
        match(planned.given, planned.slots, **known.arguments)
    except MapError as error:
        return error.reason
    except StateDictError:
        pass
    return None
