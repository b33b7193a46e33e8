"""`statedict verify`: whether files are what was written, and harmless."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from statedict.files import redacted
from statedict.report import Fact

from ..errors import FormatError
from ._options import AsJson
from ._streams import opened

COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim", "": "green"}


def verify(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Checkpoints: files, or directories of shards.")
    ],
    values: Annotated[bool, typer.Option("--values", help="Also look for NaN and Inf in every tensor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check structure, offsets, checksums and imports of checkpoints, and say what is wrong.

    Exit code 0 when no file has an error (warnings and notes are printed), 1 when one has, 2 when one cannot be read.

    Examples:

        statedict verify model.pt

        statedict verify --values checkpoints/*.safetensors
    """
    told = [_verify(file, values) for file in files]
    if as_json:
        typer.echo(json.dumps({"schema": 1, "files": told}))
    else:
        _print(told)
    raise typer.Exit(0 if all(fact["sound"] for fact in told) else 1)


def _verify(file: str, values: bool) -> Fact:
    """What was found in one file; a file that does not even open has that as its error."""
    try:
        with opened(file) as checkpoint:
            found = [finding._asdict() for finding in checkpoint.verify(values=values)]
    except FormatError as error:
        found = [{"level": "error", "where": "", "text": str(error)}]
    return {"file": redacted(file), "sound": all(f["level"] != "error" for f in found), "findings": found}


def _print(told: list[Fact]) -> None:
    from . import _show

    out = _show.console()
    for fact in told:
        out.print(
            _show.text(f"{fact['file']}: {'sound' if fact['sound'] else 'NOT SOUND'}", _style(fact)), soft_wrap=True
        )
        for found in fact["findings"]:
            where = f"{found['where']}: " if found["where"] else ""
            out.print(
                _show.text(f"  {found['level']}: {where}{found['text']}", COLOURS[found["level"]]), soft_wrap=True
            )


def _style(fact: Fact) -> str:
    return COLOURS["" if fact["sound"] else "error"]
