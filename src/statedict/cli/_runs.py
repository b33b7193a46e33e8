"""`statedict runs`: list the checkpoints of a run; preview or apply retention rules to those of CheckpointManager."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

import statedict
from statedict.files import is_url, open_folder
from statedict.formats.runs import RunStep, own_steps, read_open, steps
from statedict.report import Fact, count, plain, size

from ..errors import FormatError
from ._command import Argument, Option
from ._files import note, one_line
from ._options import AsJson
from ._retention import AtMost, KeepBest, KeepEvery, KeepLast, KeepWithin, check_metrics, policy_of

if TYPE_CHECKING:
    from statedict.training import Keep, Saved


def _existing(context: click.Context, parameter: click.Parameter, directory: str) -> str:
    """Return a URL, or the path of an existing directory."""
    if not is_url(directory) and not Path(directory).is_dir():
        what = "is not a directory" if Path(directory).exists() else "does not exist"
        raise click.BadParameter(f"{directory!r} {what}")
    return directory


Run = Annotated[
    str,
    Argument(
        metavar="DIRECTORY",
        help="The directory of a run, of CheckpointManager or another framework; or its URL in an object store.",
        callback=_existing,
    ),
]
Pin = Annotated[tuple[int, ...], Option(min=0, metavar="STEP", help="Pin a step: it is never deleted (repeatable).")]
Unpin = Annotated[tuple[int, ...], Option(min=0, metavar="STEP", help="Remove the pin of a step (repeatable).")]
Prune = Annotated[
    bool, Option("--prune", help="Delete the checkpoints that no rule keeps (default: the run's own rules).")
]
DryRun = Annotated[bool, Option("--dry-run", help="Show what the other options would do, and why; change nothing.")]


def runs(
    directory: Run,
    keep_last: KeepLast = None,
    keep_every: KeepEvery = (),
    keep_within: KeepWithin = None,
    keep_best: KeepBest = (),
    at_most: AtMost = None,
    pin: Pin = (),
    unpin: Unpin = (),
    prune: Prune = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of a run (step, time, size, metrics), pin steps, and preview or apply retention rules.

    Runs of transformers, accelerate, Lightning, DeepSpeed, Megatron, torchtitan and torchtune are listed by the names of
    their checkpoints, and are never deleted.

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

        statedict runs s3://bucket/runs/a --prune --dry-run
    """
    keep = policy_of(keep_last, keep_every, keep_within, keep_best, at_most)
    others = [] if is_url(directory) else steps(directory)
    if others:
        _refuse_to_delete(keep is not None or prune or dry_run)
        _report([_fact_of(each) for each in others], as_json, {})
        return
    pruned = prune and not dry_run
    with statedict.CheckpointManager(directory) as manager:
        saved: list[Saved] = manager.checkpoints
        _check_steps(saved, pin)
        check_metrics(saved, keep_best)
        if keep is None and (prune or dry_run):
            keep = _own_rules(manager)
        saved = _pinned(manager, saved, pin, unpin, dry_run=dry_run)
        if pruned:
            manager.prune(keep)
    rules = {} if keep is None else {"rules": str(keep), "pruned": pruned}
    unlisted = {} if is_url(directory) else _unlisted(directory, saved)
    stray = not saved and not unlisted and _has_others(directory)
    _report(_facts(saved, keep), as_json, rules, "deleted" if pruned else "would be deleted")
    for name, reason in unlisted.items():
        note(f"{name} is not listed: {reason}")
    if stray and not as_json:
        click.echo(
            f"this is not the directory of a run; statedict inspect {directory} shows what it contains", err=True
        )


def _own_rules(manager: statedict.CheckpointManager) -> Keep:
    """Return the retention rules that the run was saved with."""
    rules = manager.rules
    if rules is None:
        raise click.BadParameter(
            "this run does not have retention rules: give some, such as --keep-last 3 or --keep-best val_loss"
        )
    return rules


def _unlisted(directory: str, saved: Sequence[Saved]) -> dict[str, str]:
    """Return the names of the checkpoints in a directory whose manifests are not valid, with the reasons."""
    found, listed = {}, {each.step for each in saved}
    with closing(open_folder(directory)) as folder:
        names = [name for step, name in own_steps(folder.folders).items() if step not in listed]
        for name in names:
            try:
                read_open(folder.folder(name))  # valid if another process has saved it since the run was listed
            except FormatError as error:
                found[name] = one_line(error)
    return found


def _has_others(directory: str) -> bool:
    """Return whether a directory without checkpoints has other content; raise FileNotFoundError for a URL without any."""
    with closing(open_folder(directory)) as folder:
        return bool(folder.files or folder.folders)


def _report(facts: list[Fact], as_json: bool, rules: Fact, deletion: str | None = None) -> None:
    """Print the checkpoints.

    `deletion`: `"deleted"` or `"would be deleted"`, of those that no rule keeps; None for another framework's run.
    """
    if as_json:
        click.echo(json.dumps({"schema": 1, **rules, "checkpoints": facts}))
    else:
        _print(facts, deletion)


def _refuse_to_delete(asked: bool) -> None:
    if asked:
        raise click.BadParameter(
            "these checkpoints were not saved by CheckpointManager, so retention rules do not apply to them, and "
            "nothing was deleted; use the program that saved them, or delete them yourself"
        )


def _pinned(
    manager: statedict.CheckpointManager,
    saved: Sequence[Saved],
    pin: Sequence[int],
    unpin: Sequence[int],
    *,
    dry_run: bool,
) -> list[Saved]:
    """Pin and unpin steps; with `dry_run`, only in the checkpoints that are returned."""
    for step in unpin if not dry_run else ():
        manager.unpin(step)
    for step in pin if not dry_run else ():
        manager.pin(step)
    return [replace(each, pinned=each.step in pin or (each.pinned and each.step not in unpin)) for each in saved]


def _check_steps(saved: Sequence[Saved], pin: Sequence[int]) -> None:
    missing = sorted(set(pin) - {each.step for each in saved})
    if missing:
        raise click.BadParameter(f"--pin: this run does not have the step {', '.join(map(str, missing))}")


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


def _print(facts: list[Fact], deletion: str | None) -> None:
    from . import _show

    out = _show.console()
    made = _show.Cells("step", "time", "size", "metrics", "")
    for fact in facts:
        metrics = ", ".join(f"{name} {_number(value)}" for name, value in fact["metrics"].items())
        kept = fact.get("kept", True)
        time = fact["time"][:19].replace("T", " ")
        step = "" if fact["step"] is None else fact["step"]
        cells = (step, time, size(fact["bytes"]), metrics, _remark(fact, deletion))
        made.add_row(*(_show.text(cell, "" if kept else "dim") for cell in cells))
    if facts:
        out.print(made)
    out.say(f"{count(len(facts), 'checkpoint')}, {size(sum(fact['bytes'] for fact in facts))}", "dim")
    expired = [fact for fact in facts if not fact.get("kept", True)]
    if expired:
        out.say(f"{count(len(expired), 'checkpoint')} {deletion}, {size(sum(fact['bytes'] for fact in expired))}")


def _remark(fact: Fact, deletion: str | None) -> str:
    """Return why a checkpoint is kept or not; the name of another framework's checkpoint (`deletion` is None)."""
    if deletion is None:
        return f"{Path(fact['path']).name}{' (the newest)' if fact['newest'] else ''}"
    if "why" in fact:
        return f"{'kept' if fact['kept'] else deletion}: {', '.join(fact['why'])}"
    return "pinned" if fact["pinned"] else ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
