"""`statedict verify`: check that files are not damaged and safe to load."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from statedict.files import redacted
from statedict.report import Fact

from ..errors import FormatError, LimitError, StateDictError, UnknownFormatError, printable
from ._files import note, one_line, opened
from ._options import AsJson

COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim", "": "green"}


def verify(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Checkpoints: files, or directories of shards.")
    ],
    values: Annotated[bool, typer.Option("--values", help="Also search every tensor for NaN and Inf.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check structure, offsets, checksums and imports of checkpoints, and report all problems.

    Exit code: 0 if no file has an error (warnings and notes are printed), 1 if a file has an error, 2 if a file cannot be
    read and the others do not have errors.

    Examples:

        statedict verify model.pt

        statedict verify --values checkpoints/*.safetensors
    """
    facts = [_verify(file, values) for file in files]
    if as_json:
        typer.echo(json.dumps({"schema": 1, "files": facts}))
    else:
        _print(facts)
    damaged = any(fact["read"] and not fact["sound"] for fact in facts)
    raise typer.Exit(1 if damaged else 0 if all(fact["read"] for fact in facts) else 2)


def _verify(file: str, values: bool) -> Fact:
    """Return the findings for one file. If it cannot be opened because it is damaged, that is its error; if it cannot be
    read for another reason, it was not checked."""
    read = True
    try:
        with opened(file) as checkpoint:
            found = [finding._asdict() for finding in checkpoint.verify(values=values)]
    except (StateDictError, OSError, MemoryError) as error:
        read = isinstance(error, FormatError) and not isinstance(error, (UnknownFormatError, LimitError))
        text = one_line(error).removeprefix(f"{printable(redacted(file))}: ")
        found = [{"level": "error", "where": "", "text": text if read else f"cannot be read: {text}"}]
    sound = all(f["level"] != "error" for f in found)
    return {"file": redacted(file), "read": read, "sound": sound, "findings": found}


def _print(facts: list[Fact]) -> None:
    from . import _show

    out = _show.console()
    for fact in facts:
        if not fact["read"]:
            note(f"{fact['file']}: {fact['findings'][0]['text']}")
            continue
        level, word = ("", "sound") if fact["sound"] else ("error", "NOT SOUND")
        _show.say(out, f"{fact['file']}: {word}", COLOURS[level])
        for found in fact["findings"]:
            where = f"{found['where']}: " if found["where"] else ""
            _show.say(out, f"  {found['level']}: {where}{found['text']}", COLOURS[found["level"]])
