"""Constructors of plain Python values: numbers, bytes, times, UUIDs, paths, sizes.

Each takes the arguments of the class's own pickling, checks their types, and creates the value itself; it raises
`Unfit` for anything else. Copies are charged before they are made. Modules beyond the builtins are imported (by us,
under their own names) only when a file contains such a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from statedict.errors import FormatError

from .._values import Size
from ._keys import PATHS
from ._machine import Args, Constructor, Machine, Unfit, fit

if TYPE_CHECKING:
    import uuid


def _made(kind: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return kind(*args, **kwargs)
    except (ValueError, OverflowError, ArithmeticError, TypeError):
        raise Unfit from None


def _encode(m: Machine, args: Args) -> Any:
    """`_codecs.encode`, which protocols 0 to 2 use to write bytes."""
    text, codec = (args[0], "utf-8") if len(args) == 1 else fit(args, str, str)
    if type(text) is not str or codec.lower().replace("-", "").replace("_", "") not in ("latin1", "utf8", "ascii"):
        raise Unfit
    m.charge(len(text))
    try:
        return text.encode(codec)
    except UnicodeEncodeError:
        raise FormatError(f"text that encodes bytes is not valid {codec}") from None


def _bytes(kind: type) -> Constructor:
    def construct(m: Machine, args: Args) -> Any:
        if not args:
            return kind()
        raw = args[0]
        if type(raw) is int:
            raise FormatError(
                f"{kind.__name__}({raw:,}): this needs far more memory than the size of the file justifies"
            )
        if type(raw) is str and len(args) == 2:
            raw = _encode(m, args)
        elif type(raw) is list and all(type(each) is int and 0 <= each < 256 for each in raw):
            raw = bytes(raw)
        elif type(raw) not in (bytes, bytearray) or len(args) != 1:
            raise Unfit
        m.charge(len(raw))
        return kind(raw)

    return construct


def _numbers(kind: Callable[..., Any], *kinds: tuple[type, ...]) -> Constructor:
    """Return a constructor that takes numbers (or None) of the given types, of which trailing ones may be omitted."""

    def construct(m: Machine, args: Args) -> Any:
        return _made(kind, *fit(args, *kinds[: len(args)]))

    return construct


def _size(m: Machine, args: Args) -> Any:
    (items,) = fit(args, (tuple, list)) if args else ((),)
    if len(items) > m.limits.dimensions:
        raise m.limits.exceeded("dimensions", f"a torch.Size of {len(items):,} dimensions")
    if not all(type(size) is int for size in items):
        raise FormatError("the items of a torch.Size should be integers")
    return Size(items)


# times, exact numbers, UUIDs, paths


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

    return _made(datetime.timedelta, *fit(args, *(int,) * min(len(args), 3)))


def _timezone(m: Machine, args: Args) -> Any:
    import datetime

    return _made(datetime.timezone, *fit(args, *(datetime.timedelta, str)[: max(len(args), 1)]))


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


_INT, _REAL, _INDEX = (int,), (int, float), (int, type(None))

CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    ("builtins", "bytes"): _bytes(bytes),
    ("builtins", "bytearray"): _bytes(bytearray),
    ("builtins", "complex"): _numbers(complex, _REAL, _REAL),
    ("builtins", "range"): _numbers(range, _INT, _INT, _INT),
    ("builtins", "slice"): _numbers(slice, _INDEX, _INDEX, _INDEX),
    ("_codecs", "encode"): _encode,
    ("torch", "Size"): _size,
    ("datetime", "datetime"): _datetime,
    ("datetime", "date"): _date,
    ("datetime", "time"): _time,
    ("datetime", "timedelta"): _timedelta,
    ("datetime", "timezone"): _timezone,
    ("decimal", "Decimal"): _decimal,
    ("fractions", "Fraction"): _fraction,
    ("uuid", "UUID"): _uuid,
    **{(module, flavour): _path(flavour) for module in ("pathlib", "pathlib._local") for flavour in PATHS},
}
BUILDERS: dict[tuple[str, str], Callable[[Machine, Any, Any], None]] = {("uuid", "UUID"): _build_uuid}
CONSTANTS: dict[tuple[str, str], Any] = {
    ("builtins", "Ellipsis"): ...,
    ("builtins", "NotImplemented"): NotImplemented,
}
# Known classes whose instances become Opaque, because they are not needed here as anything else; importing them is
# safe.
HARMLESS = frozenset({("builtins", name) for name in ("object", "int", "float", "str", "bool", "type")})
