"""`statedict merge`: one checkpoint of several."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

import statedict
from statedict.report import count, size

from ._progress import showing


def merge(
    files: Annotated[list[Path], typer.Argument(help="The checkpoints to merge.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)],
    method: Annotated[
        str,
        typer.Option(help="average, task_arithmetic (needs --base), slerp (of two), or union (of different names)."),
    ] = "average",
    weight: Annotated[
        list[float] | None, typer.Option(help="One for each file, in order; for slerp one: how far to the second.")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="For task_arithmetic: what the others were trained from.")] = None,
    root: Annotated[str, typer.Option(help="The state dict at this path in every file.")] = "auto",
    format: Annotated[
        str | None, typer.Option(help="torch, safetensors, npz; what the output's name says where left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was written as JSON, for programs.")] = False,
) -> None:
    """Merge checkpoints of one architecture: their average, or another combination. One tensor at a time is in memory.

    Examples:

        statedict merge epoch-8.pt epoch-9.pt epoch-10.pt -o average.pt

        statedict merge a.safetensors b.safetensors --method slerp --weight 0.3 -o between.safetensors

        statedict merge math.pt code.pt --method task_arithmetic --base base.pt --weight 0.5 --weight 0.5 -o both.pt
    """
    with ExitStack() as opened:
        states = [opened.enter_context(statedict.open(file)).state_dict(root) for file in files]
        under = opened.enter_context(statedict.open(base)).state_dict(root) if base else None
        weights = weight[0] if weight and method == "slerp" and len(weight) == 1 else weight
        try:
            merged = statedict.merge(states, method=method, weights=weights or None, base=under)
        except ValueError as error:
            if isinstance(error, statedict.StateDictError):
                raise
            raise typer.BadParameter(str(error)) from error
        with showing(merged, f"writing {output}") as shown:
            statedict.save(shown, output, format=format)
        tensors = sum(1 for _ in merged.leaves())
    written = {"schema": 1, "file": str(output), "method": method, "tensors": tensors, "bytes": merged.nbytes}
    told = f"{output}: {method} of {count(len(files), 'file')}, {count(tensors, 'tensor')}, {size(merged.nbytes)}"
    typer.echo(json.dumps(written) if as_json else told)
