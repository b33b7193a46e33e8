"""`statedict runs`: list the checkpoints of a run; preview or apply retention rules to those of CheckpointManager."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

import statedict
from statedict.formats.runs import RunStep, steps
from statedict.report import Fact, count, plain, size

from ._options import AsJson

if TYPE_CHECKING:
    from statedict.training import Keep, Saved

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
TIME = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[mhd])")
BEST = re.compile(r"(?P<metric>[^:].*?)(?::(?P<n>\d+))?(?::(?P<mode>min|max))?")


def runs(
    directory: Annotated[
        Path,
        typer.Argument(
            help="The directory of a run, of CheckpointManager or another framework.",
            show_default=False,
            exists=True,
            file_okay=False,
        ),
    ],
    keep_last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Rule: keep the newest N.")] = None,
    keep_every: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|TIME",
            help="Rule: keep every step that is a multiple of N, or one checkpoint per 30m, 2h or 1d (repeatable).",
        ),
    ] = None,
    keep_within: Annotated[
        str | None, typer.Option(metavar="TIME", help="Rule: keep the last 12h or 7d, counted from the newest.")
    ] = None,
    keep_best: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC[:N][:max]",
            help="Rule: keep the N (default 1) lowest, or with :max highest, values of a metric (repeatable).",
        ),
    ] = None,
    at_most: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Of what the rules keep (or of all), keep only the newest that take at most 200GB."
        ),
    ] = None,
    pin: Annotated[
        list[int] | None, typer.Option(min=0, metavar="STEP", help="Pin a step: it is never deleted (repeatable).")
    ] = None,
    unpin: Annotated[
        list[int] | None, typer.Option(min=0, metavar="STEP", help="Remove the pin of a step (repeatable).")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what no rule keeps. Default rules: those of the run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the other options would do, and why; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of a run (step, time, size, metrics), pin steps, and preview or apply retention rules.

    Runs of transformers, accelerate, Lightning, DeepSpeed, Megatron, torchtitan and torchtune are listed by the names of
    their checkpoints; nothing of them is deleted.

    A checkpoint is kept if any rule keeps it; the newest and pinned ones are always kept. Without rules, --prune uses the
    run's own. Nothing is deleted without --prune, or while another process saves in the directory (exit code 2). Steps can
    be pinned at any time.

    Examples:

        statedict runs checkpoints

        statedict runs lightning_logs/version_3

        statedict runs checkpoints --prune --dry-run

        statedict runs checkpoints --keep-last 3 --keep-every 10000 --keep-best val_loss:2

        statedict runs checkpoints --prune --keep-last 1 --keep-best accuracy:max

        statedict runs checkpoints --prune --keep-within 7d --at-most 200GB

        statedict runs checkpoints --pin 12000
    """
    keep = _rules(keep_last, keep_every or [], keep_within, keep_best or [], at_most)
    others = steps(directory)
    if others:
        _refuse_to_delete(keep is not None or prune or dry_run)
        _tell([_fact_of(each) for each in others], as_json, {})
        return
    with statedict.CheckpointManager(directory) as manager:
        saved = manager.checkpoints
        _check_steps(saved, pin or [])
        _check_metrics(saved, keep_best or [])
        if keep is None and (prune or dry_run):
            keep = manager.rules
            if keep is None:
                raise typer.BadParameter(
                    "this run does not have retention rules: give some, such as --keep-last 3 or --keep-best val_loss"
                )
        saved = _pinned(manager, saved, pin or [], unpin or [], dry_run=dry_run)
        if prune and not dry_run:
            manager.prune(keep)
    pruned = prune and not dry_run
    rules = {} if keep is None else {"rules": str(keep), "pruned": pruned}
    _tell(_facts(saved, keep), as_json, rules, "deleted" if pruned else "would be deleted")
    if not saved and not as_json and any(directory.iterdir()):
        typer.echo(
            f"this is not the directory of a run; statedict inspect {directory} shows what it contains", err=True
        )


def _tell(facts: list[Fact], as_json: bool, rules: Fact, gone: str | None = None) -> None:
    """Print the checkpoints. `gone`: what happens to those that no rule keeps; None for a run that rules do not apply to."""
    if as_json:
        typer.echo(json.dumps({"schema": 1, **rules, "checkpoints": facts}))
    else:
        _print(facts, gone)


def _refuse_to_delete(asked: bool) -> None:
    if asked:
        raise typer.BadParameter(
            "these checkpoints were not saved by CheckpointManager, so no rule applies to them and none is deleted; use the "
            "program that saved them, or delete them yourself"
        )


def _pinned(
    manager: statedict.CheckpointManager, saved: Sequence[Saved], pin: list[int], unpin: list[int], *, dry_run: bool
) -> list[Saved]:
    """Pin and unpin steps; with `dry_run`, only in the checkpoints that are returned."""
    for step in unpin if not dry_run else ():
        manager.unpin(step)
    for step in pin if not dry_run else ():
        manager.pin(step)
    return [replace(each, pinned=each.step in pin or (each.pinned and each.step not in unpin)) for each in saved]


def _rules(
    newest: int | None, regular: list[str], within: str | None, metrics: list[str], largest: str | None
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
        raise typer.BadParameter(f"--at-most: {error}") from error


def _every(asked: str) -> Keep:
    if asked.isdecimal() and int(asked):
        return statedict.every(int(asked))
    return statedict.every(**_time(asked, "--keep-every"))


def _time(asked: str, option: str) -> dict[str, Any]:
    """The arguments of `every` and `within` for a time such as 30m, 2h or 7d."""
    found = TIME.fullmatch(asked)
    if found is None or not float(found["number"]):
        steps = "a number of at least 1, or " if option == "--keep-every" else ""
        raise typer.BadParameter(f"{option} needs {steps}a time such as 30m, 12h or 7d, not {asked!r}")
    number = float(found["number"])
    return {UNITS[found["unit"]]: int(number) if number.is_integer() else number}


def _check_steps(saved: Sequence[Saved], pin: list[int]) -> None:
    missing = sorted(set(pin) - {each.step for each in saved})
    if missing:
        raise typer.BadParameter(f"--pin: this run does not have the step {', '.join(map(str, missing))}")


def _check_metrics(saved: Sequence[Saved], asked: list[str]) -> None:
    """Refuse a metric that no checkpoint has: it is probably misspelt, and pruning by it would delete the best one."""
    known = {metric for each in saved for metric in each.metrics}
    for metric in (_parsed(each)["metric"] for each in asked):
        if saved and metric not in known:
            available = f"available: {', '.join(sorted(known))}" if known else "they do not have any metrics"
            raise typer.BadParameter(f"--keep-best: no checkpoint of this run has a metric {metric!r}; {available}")


def _parsed(asked: str) -> re.Match[str]:
    found = BEST.fullmatch(asked)
    if found is None or found["n"] == "0":
        raise typer.BadParameter(
            f"--keep-best needs METRIC, METRIC:N or METRIC:N:max, with N at least 1, not {asked!r}"
        )
    return found


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
            "newest": each is saved[-1],
            "pinned": each.pinned,
            **({"kept": bool(why[each.step]), "why": why[each.step] or ["no rule keeps it"]} if why else {}),
        }
        for each in saved
    ]


def _fact_of(step: RunStep) -> Fact:
    return {
        "step": step.number,
        "path": step.path,
        "time": step.time.isoformat(),
        "bytes": step.nbytes,
        "metrics": {name: plain(value) for name, value in step.metrics.items()},
        "newest": step.is_newest,
    }


def _print(facts: list[Fact], gone: str | None) -> None:
    from . import _show

    out = _show.console()
    made = _show.CellTable("step", "time", "size", "metrics", "")
    for fact in facts:
        metrics = ", ".join(f"{name} {_number(value)}" for name, value in fact["metrics"].items())
        kept = fact.get("kept", True)
        time = fact["time"][:19].replace("T", " ")
        step = "" if fact["step"] is None else fact["step"]
        cells = (step, time, size(fact["bytes"]), metrics, _remark(fact, gone))
        made.add_row(*(_show.text(cell, "" if kept else "dim") for cell in cells))
    if facts:
        out.print(made)
    _show.say(out, f"{count(len(facts), 'checkpoint')}, {size(sum(fact['bytes'] for fact in facts))}", "dim")
    expired = [fact for fact in facts if not fact.get("kept", True)]
    if expired:
        _show.say(out, f"{count(len(expired), 'checkpoint')} {gone}, {size(sum(fact['bytes'] for fact in expired))}")


def _remark(fact: Fact, gone: str | None) -> str:
    """Return why a checkpoint is kept or not; the name of another framework's checkpoint (`gone` is None)."""
    if gone is None:
        return f"{Path(fact['path']).name}{' (the newest)' if fact['newest'] else ''}"
    if "why" in fact:
        return f"{'kept' if fact['kept'] else gone}: {', '.join(fact['why'])}"
    return "pinned" if fact["pinned"] else ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
