"""Constructors of times, exact numbers, UUIDs and paths, from checked parts.

Their modules are imported (by us, under their own names) only when a file contains such a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from statedict.errors import FormatError

from ._machine import Machine, Unfit

if TYPE_CHECKING:
    import uuid

Args = tuple[Any, ...]
Constructor = Callable[[Machine, Args], Any]


def _made(kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return kind(*args, **kwargs)
    except (ValueError, OverflowError, ArithmeticError, TypeError):
        raise Unfit from None


def _packed(args: Args, size: int) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes in which a date or time is pickled, and its timezone."""
    import datetime

    raw = args[0].encode("latin1", "replace") if args and type(args[0]) is str else args[0] if args else None
    if type(raw) is not bytes or len(raw) != size or len(args) > 2:
        raise Unfit
    if len(args) == 2 and not isinstance(args[1], datetime.tzinfo):
        raise Unfit
    return raw, {"tzinfo": args[1]} if len(args) == 2 else {}


def _datetime(m: Machine, args: Args) -> Any:
    import datetime

    raw, zone = _packed(args, 10)
    # The fold (which of two equal times when daylight saving ends) is the highest bit of the month.
    fields = (raw[0] << 8 | raw[1], raw[2] & 127, *raw[3:7], int.from_bytes(raw[7:], "big"))
    return _made(datetime.datetime, *fields, fold=raw[2] >> 7, **zone)


def _date(m: Machine, args: Args) -> Any:
    import datetime

    raw, _ = _packed(args[:1], 4)
    return _made(datetime.date, raw[0] << 8 | raw[1], raw[2], raw[3])


def _time(m: Machine, args: Args) -> Any:
    import datetime

    raw, zone = _packed(args, 6)
    return _made(datetime.time, raw[0] & 127, raw[1], raw[2], int.from_bytes(raw[3:], "big"), fold=raw[0] >> 7, **zone)


def _timedelta(m: Machine, args: Args) -> Any:
    import datetime

    if len(args) > 3 or not all(type(part) is int for part in args):
        raise Unfit
    return _made(datetime.timedelta, *args)


def _timezone(m: Machine, args: Args) -> Any:
    import datetime

    if (
        not 1 <= len(args) <= 2
        or type(args[0]) is not datetime.timedelta
        or any(type(name) is not str for name in args[1:])
    ):
        raise Unfit
    return _made(datetime.timezone, *args)


def _decimal(m: Machine, args: Args) -> Any:
    from decimal import Decimal

    return _made(Decimal, _digits(m, args))


def _fraction(m: Machine, args: Args) -> Any:
    from fractions import Fraction

    if len(args) == 2 and all(type(part) is int for part in args):
        return _made(Fraction, *args)
    text = _digits(m, args)
    # Only the form that Fraction writes: computing the digits of "1e10000000" would take hours.
    if not _RATIO.fullmatch(text):
        raise Unfit
    return _made(Fraction, text)


_RATIO = re.compile(r"-?[0-9]+(?:/[0-9]+)?", re.ASCII)


def _digits(m: Machine, args: Args) -> str:
    if len(args) != 1 or type(args[0]) is not str:
        raise Unfit
    if len(args[0]) > m.limits.digits:
        raise m.limits.exceeded("digits", f"a number of {len(args[0]):,} digits")
    return args[0]


def _uuid(m: Machine, args: Args) -> Any:
    """Return the UUID whose number a BUILD then sets."""
    import uuid

    if args:
        raise Unfit
    return uuid.UUID(int=0)


def _build_uuid(m: Machine, target: uuid.UUID, state: Any) -> None:
    number = state.get("int") if type(state) is dict else None
    if type(number) is not int or not 0 <= number < 1 << 128 or target.int:
        raise FormatError("the state of a UUID is malformed, or is set twice")
    object.__setattr__(target, "int", number)


def _path(flavour: str) -> Constructor:
    def construct(m: Machine, args: Args) -> Any:
        import pathlib

        if not all(type(part) is str for part in args):
            raise Unfit
        m.charge(sum(map(len, args)))
        # Paths of another operating system can only be created as pure paths.
        own = flavour.removeprefix("Pure") == ("WindowsPath" if os.name == "nt" else "PosixPath")
        kind = getattr(pathlib, flavour if own or flavour.startswith("Pure") else f"Pure{flavour}")
        return _made(kind, *args)

    return construct


CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    ("datetime", "datetime"): _datetime,
    ("datetime", "date"): _date,
    ("datetime", "time"): _time,
    ("datetime", "timedelta"): _timedelta,
    ("datetime", "timezone"): _timezone,
    ("decimal", "Decimal"): _decimal,
    ("fractions", "Fraction"): _fraction,
    ("uuid", "UUID"): _uuid,
    **{
        (module, flavour): _path(flavour)
        for module in ("pathlib", "pathlib._local")
        for flavour in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
}
BUILDERS: dict[tuple[str, str], Callable[[Machine, Any, Any], None]] = {("uuid", "UUID"): _build_uuid}
