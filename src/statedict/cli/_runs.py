"""`statedict runs`: the checkpoints of a run, what rules of retention keep of them and why, and pruning by them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

import statedict
from statedict.report import Fact, count, plain, size

from ._options import AsJson

if TYPE_CHECKING:
    from statedict.training import Keep, Saved

BEST = re.compile(r"(?P<metric>[^:].*?)(?::(?P<n>\d+))?(?::(?P<mode>min|max))?")


def runs(
    directory: Annotated[
        Path, typer.Argument(help="Where a CheckpointManager saves.", show_default=False, exists=True, file_okay=False)
    ],
    keep_last: Annotated[int | None, typer.Option(min=1, metavar="N", help="A rule: keep the newest N.")] = None,
    keep_every: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="A rule: keep every step that is a multiple of N.")
    ] = None,
    keep_best: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC[:N][:max]",
            help="A rule: keep the N (1) lowest, or highest, of a metric; may be repeated.",
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what no rule keeps; the run's own rules, unless others are given.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what --prune would delete, and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of a run: step, time, size, metrics; show what rules of retention keep of them, or prune by them.

    What any rule keeps stays, and so does the newest checkpoint. Without `--keep-…`, `--prune` goes by the rules that the
    run itself was saved under. Nothing is deleted without `--prune`, and nothing while somebody saves in the directory
    (exit code 2).

    Examples:

        statedict runs checkpoints

        statedict runs checkpoints --prune --dry-run

        statedict runs checkpoints --keep-last 3 --keep-every 10000 --keep-best val_loss:2

        statedict runs checkpoints --prune --keep-last 1 --keep-best accuracy:max
    """
    keep = _rules(keep_last, keep_every, keep_best or [])
    with statedict.CheckpointManager(directory) as manager:
        saved = manager.checkpoints
        _check_metrics(saved, keep_best or [])
        if keep is None and (prune or dry_run):
            keep = _own_rules(manager)
        if prune and not dry_run:
            manager.prune(keep)
    told = _facts(saved, keep)
    pruned = prune and not dry_run
    if as_json:
        rules = {} if keep is None else {"rules": str(keep), "pruned": pruned}
        typer.echo(json.dumps({"schema": 1, **rules, "checkpoints": told}))
    else:
        _print(told, "deleted" if pruned else "would be deleted")


def _rules(newest: int | None, steps: int | None, metrics: list[str]) -> Keep | None:
    """The rules asked for as one, or None where none was."""
    rules = [statedict.last(newest)] if newest else []
    rules += [statedict.every(steps)] if steps else []
    rules += [_best(asked) for asked in metrics]
    return statedict.any_of(*rules) if rules else None


def _check_metrics(saved: Sequence[Saved], asked: list[str]) -> None:
    """Refuse a metric that no checkpoint has: it is misspelt, and pruning by it would delete the best there is."""
    known = {metric for each in saved for metric in each.metrics}
    for metric in (_parsed(each)["metric"] for each in asked):
        if saved and metric not in known:
            there = ", ".join(sorted(known)) or "none at all"
            raise typer.BadParameter(
                f"--keep-best: no checkpoint of this run has a metric {metric!r}; there is {there}"
            )


def _parsed(asked: str) -> re.Match[str]:
    found = BEST.fullmatch(asked)
    if found is None or found["n"] == "0":
        raise typer.BadParameter(f"--keep-best takes METRIC, METRIC:N or METRIC:N:max, with N from 1 on, not {asked!r}")
    return found


def _best(asked: str) -> Keep:
    found = _parsed(asked)
    return statedict.best(found["metric"], int(found["n"] or 1), cast(Literal["min", "max"], found["mode"] or "min"))


def _own_rules(manager: statedict.CheckpointManager) -> Keep:
    """What the run is kept by; a mistake where that is not known."""
    rules = manager.rules
    if rules is None:
        raise typer.BadParameter(
            "this run does not say which rules it is kept by: give some, as --keep-last 3 or --keep-best val_loss"
        )
    return rules


def _facts(saved: Sequence[Saved], keep: Keep | None) -> list[Fact]:
    from statedict.training import reasons

    why = {} if keep is None else reasons(saved, keep)
    return [
        {
            "step": each.step,
            "path": str(each.path),
            "time": each.time.isoformat(),
            "bytes": each.nbytes,
            "metrics": {name: plain(value) for name, value in each.metrics.items()},
            **({"kept": bool(why[each.step]), "why": why[each.step] or ["no rule keeps it"]} if why else {}),
        }
        for each in saved
    ]


def _print(told: list[Fact], gone: str) -> None:
    from . import _show

    out = _show.console()
    made = _show.table("time", "size", "metrics", "", name="step")
    for fact in told:
        metrics = ", ".join(f"{name} {_number(value)}" for name, value in fact["metrics"].items())
        kept = fact.get("kept", True)
        mark = f"{'kept' if kept else gone}: {', '.join(fact['why'])}" if "why" in fact else ""
        time = fact["time"][:19].replace("T", " ")
        cells = (fact["step"], time, size(fact["bytes"]), metrics, mark)
        made.add_row(*(_show.text(cell, "" if kept else "dim") for cell in cells))
    if told:
        out.print(made)
    _show.say(out, f"{count(len(told), 'checkpoint')}, {size(sum(fact['bytes'] for fact in told))}", "dim")
    expired = [fact for fact in told if not fact.get("kept", True)]
    if expired:
        _show.say(out, f"{count(len(expired), 'checkpoint')} {gone}, {size(sum(fact['bytes'] for fact in expired))}")


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
