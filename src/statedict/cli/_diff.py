"""`statedict diff`: what changed from one checkpoint to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import statedict


def diff(
    first: Annotated[Path, typer.Argument(help="A checkpoint.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    root: Annotated[str, typer.Option(help="The state dict at this path in both files.")] = "auto",
    second_root: Annotated[str | None, typer.Option(help="The same, of the second file, where it differs.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Only names that match; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not the names that match; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Compare two checkpoints: names, shapes, dtypes, elements, ties. Their formats may differ.

    Exit code 0 when they are the same, 1 when they differ, 2 for a mistake in the call or a file.

    Examples:

        statedict diff before.pt after.pt

        statedict diff run.ckpt run.ckpt --root model --second-root ema

        statedict diff model.pt model.safetensors --exclude '*.num_batches_tracked'
    """
    with statedict.open(first) as one, statedict.open(second) as other:
        states = [one.state_dict(root), other.state_dict(root if second_root is None else second_root)]
        chosen = [(state.select(*include) if include else state).drop(*(exclude or [])) for state in states]
        found = statedict.diff(*chosen)
    told = json.dumps({"schema": 1, **found.to_dict()}) if as_json else str(found)
    typer.echo(told)
    raise typer.Exit(1 if found else 0)
