"""The options of `statedict runs` about what to keep, as a retention policy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import click

import statedict

from ._command import Option

if TYPE_CHECKING:
    from statedict.training import Keep, Saved

KeepLast = Annotated[int | None, Option(min=1, metavar="N", help="Rule: keep the newest N.")]
KeepEvery = Annotated[
    tuple[str, ...],
    Option(
        metavar="N|TIME",
        help="Rule: keep every step that is a multiple of N, or one checkpoint per 30m, 2h or 1d (repeatable).",
    ),
]
KeepWithin = Annotated[
    str | None, Option(metavar="TIME", help="Rule: keep those saved within 12h or 7d before the newest.")
]
KeepBest = Annotated[
    tuple[str, ...],
    Option(
        metavar="METRIC[:N][:max]",
        help="Rule: keep the N (default 1) lowest, or with :max highest, values of a metric (repeatable).",
    ),
]
AtMost = Annotated[
    str | None,
    Option(
        metavar="SIZE",
        help="Keep only the newest of those (without rules: of all), up to this total size, such as 200GB.",
    ),
]
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
TIME = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[mhd])")
BEST = re.compile(r"(?P<metric>[^:].*?)(?::(?P<n>\d+))?(?::(?P<mode>min|max))?")


def policy_of(
    newest: int | None, regular: Sequence[str], within: str | None, metrics: Sequence[str], largest: str | None
) -> Keep | None:
    """Return the given rules as one, or None if there are none."""
    rules: list[Keep] = [statedict.last(newest)] if newest else []
    rules += [_every(each) for each in regular]
    rules += [statedict.within(**_time(within, "--keep-within"))] if within is not None else []
    for found in map(_parsed, metrics):
        mode = cast(Literal["min", "max"], found["mode"] or "min")
        rules.append(statedict.best(found["metric"], int(found["n"] or 1), mode))
    keep = statedict.any_of(*rules) if rules else None
    if largest is None:
        return keep
    try:
        return statedict.at_most(largest, keep)
    except ValueError as error:
        raise click.BadParameter(f"--at-most: {error}") from error


def _every(asked: str) -> Keep:
    if asked.isdecimal() and int(asked):
        return statedict.every(int(asked))
    return statedict.every(**_time(asked, "--keep-every"))


def _time(asked: str, option: str) -> dict[str, Any]:
    """The arguments of `every` and `within` for a time such as 30m, 2h or 7d."""
    found = TIME.fullmatch(asked)
    if found is None or not float(found["number"]):
        steps = "a number of at least 1, or " if option == "--keep-every" else ""
        raise click.BadParameter(f"{option} needs {steps}a time such as 30m, 12h or 7d, not {asked!r}")
    number = float(found["number"])
    return {UNITS[found["unit"]]: int(number) if number.is_integer() else number}


def check_metrics(saved: Sequence[Saved], asked: Sequence[str]) -> None:
    """Refuse a metric that no checkpoint has: it is probably misspelt, and pruning by it would delete the best one."""
    known = {metric for each in saved for metric in each.metrics}
    for metric in (_parsed(each)["metric"] for each in asked):
        if saved and metric not in known:
            available = f"available: {', '.join(sorted(known))}" if known else "they do not have any metrics"
            raise click.BadParameter(f"--keep-best: no checkpoint of this run has a metric {metric!r}; {available}")


def _parsed(asked: str) -> re.Match[str]:
    found = BEST.fullmatch(asked)
    if found is None or found["n"] == "0":
        raise click.BadParameter(
            f"--keep-best needs METRIC, METRIC:N or METRIC:N:max, with N at least 1, not {asked!r}"
        )
    return found
