"""`statedict verify`: check that files are not damaged and safe to load."""

from __future__ import annotations

import json
from typing import Annotated

import click

from statedict.files import redacted
from statedict.formats import is_damage
from statedict.report import Fact

from ..errors import StateDictError, printable
from ._command import Argument, Option
from ._files import note, one_line, opened
from ._options import AsJson

COLOURS = {"error": "bold red", "unread": "bold red", "warning": "yellow", "note": "dim", "": "green"}


def verify(
    files: Annotated[tuple[str, ...], Argument(metavar="FILE", help="Checkpoints: files, or directories.")],
    values: Annotated[bool, Option("--values", help="Also search every tensor for NaN and Inf.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check structure, offsets, checksums and imports of checkpoints, and report all problems.

    Exit code: 0 if no file has an error (warnings and notes are printed), 1 if a file has an error, 2 if a file, or a
    part of one, cannot be read and nothing has an error.

    Examples:

        statedict verify model.pt

        statedict verify --values checkpoints/*.safetensors

        statedict verify runs/a runs/a/step-*
    """
    facts = [_verify(file, values) for file in files]
    if as_json:
        click.echo(json.dumps({"schema": 1, "files": facts}))
    else:
        _print(facts)
    damaged = any(_has(fact, "error") for fact in facts)
    raise click.exceptions.Exit(1 if damaged else 0 if all(fact["read"] for fact in facts) else 2)


def _verify(file: str, values: bool) -> Fact:
    """Return the findings for one file. If it cannot be opened because it is damaged, that is its error; if it cannot be
    read for another reason, it was not checked."""
    try:
        with opened(file) as checkpoint:
            found = [finding._asdict() for finding in checkpoint.verify(values=values)]
    except (StateDictError, OSError, MemoryError) as error:
        text = one_line(error).removeprefix(f"{printable(redacted(file))}: ")
        damaged = {"level": "error", "where": "", "text": text}
        found = [damaged if is_damage(error) else {**damaged, "level": "unread", "text": f"cannot be read: {text}"}]
    fact = {"file": redacted(file), "read": True, "sound": True, "findings": found}
    read = not _has(fact, "unread")
    return {**fact, "read": read, "sound": read and not _has(fact, "error")}


def _has(fact: Fact, level: str) -> bool:
    return any(found["level"] == level for found in fact["findings"])


def _print(facts: list[Fact]) -> None:
    from . import _show

    out = _show.console()
    for fact in facts:
        if not fact["read"] and not _has(fact, "error"):
            for found in fact["findings"]:
                if found["level"] == "unread":
                    note(": ".join(filter(None, (fact["file"], found["where"], found["text"]))))
            continue
        level, word = ("", "sound") if fact["sound"] else ("error", "NOT SOUND")
        out.say(f"{fact['file']}: {word}", COLOURS[level])
        for found in fact["findings"]:
            where = f"{found['where']}: " if found["where"] else ""
            out.say(f"  {found['level']}: {where}{found['text']}", COLOURS[found["level"]])
