"""The caller's request for a load: its options, checked; and when a load counts as refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from statedict.errors import LoadError
from statedict.state import Patterns, arguments

from . import _sources

if TYPE_CHECKING:
    from statedict.plan import LoadReport
    from statedict.state import CastKind
    from statedict.tree import JointLoad, Rules


class Undo(Exception):
    """Not an error: makes the engine restore the object after a dry run, or after a load that is refused."""


@dataclass(frozen=True, slots=True)
class Request:
    """The caller's options for a load.

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
