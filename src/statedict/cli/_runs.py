"""`statedict runs`: the checkpoints of a run, and what rules of retention would keep of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import statedict
from statedict.report import Fact, count, plain, size

if TYPE_CHECKING:
    from statedict.training import Keep


def runs(
    directory: Annotated[
        Path, typer.Argument(help="Where a CheckpointManager saves.", show_default=False, exists=True, file_okay=False)
    ],
    keep_last: Annotated[int | None, typer.Option(min=1, help="Show what keeping the newest N would delete.")] = None,
    keep_every: Annotated[int | None, typer.Option(min=1, help="And every step that is a multiple of N.")] = None,
    keep_best: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", help="And the lowest of a metric; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """List the checkpoints of a run: step, time, size, metrics. With rules, show which they would keep; deletes nothing.

    Examples:

        statedict runs checkpoints

        statedict runs checkpoints --keep-last 3 --keep-every 10000 --keep-best val_loss
    """
    from statedict.training import expired

    with statedict.CheckpointManager(directory) as manager:
        saved = manager.checkpoints
    keep = _rules(keep_last, keep_every, keep_best or [])
    deleted = {each.step for each in expired(saved, keep)} if keep else set()
    told = [
        {
            "step": each.step,
            "path": str(each.path),
            "time": each.time.isoformat(),
            "bytes": each.nbytes,
            "metrics": {name: plain(value) for name, value in each.metrics.items()},
            **({"kept": each.step not in deleted} if keep else {}),
        }
        for each in saved
    ]
    if as_json:
        typer.echo(json.dumps({"schema": 1, "checkpoints": told}))
    else:
        _print(told)


def _rules(newest: int | None, steps: int | None, metrics: list[str]) -> Keep | None:
    """The rules asked for as one, or None where none was."""
    rules = [statedict.last(newest)] if newest else []
    rules += [statedict.every(steps)] if steps else []
    rules += [statedict.best(metric) for metric in metrics]
    return statedict.any_of(*rules) if rules else None


def _print(told: list[Fact]) -> None:
    from . import _show

    out = _show.console()
    made = _show.table("time", "size", "metrics", "", name="step")
    for fact in told:
        metrics = ", ".join(f"{name} {_number(value)}" for name, value in fact["metrics"].items())
        mark = ("kept" if fact["kept"] else "would be deleted") if "kept" in fact else ""
        style = "" if fact.get("kept", True) else "dim"
        time = fact["time"][:19].replace("T", " ")
        made.add_row(*(_show.text(cell, style) for cell in (fact["step"], time, size(fact["bytes"]), metrics, mark)))
    if told:
        out.print(made)
    _show.say(out, f"{count(len(told), 'checkpoint')}, {size(sum(fact['bytes'] for fact in told))}", "dim")


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
