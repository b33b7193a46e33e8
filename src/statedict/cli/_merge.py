"""`statedict merge`: merge several checkpoints into one."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Annotated

import typer

import statedict
from statedict.report import count, size

from ._files import STREAM, keep_inputs, opened, target, tell, warnings_told
from ._options import Format, JsonSummary, as_bad_parameter
from ._progress import showing


def merge(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="The checkpoints to merge.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The file to write; `-` is standard output.")
    ],
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="average, task_arithmetic (needs --base), slerp (of two files), or union (of different names).",
        ),
    ] = "average",
    weight: Annotated[
        list[float] | None,
        typer.Option(metavar="NUMBER", help="One for each file, in order; for slerp one number from 0 to 1."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For task_arithmetic: the checkpoint that the others were trained from."),
    ] = None,
    root: Annotated[str, typer.Option(metavar="PATH", help="The state dict at this path in every file.")] = "auto",
    format: Format = None,
    as_json: JsonSummary = False,
) -> None:
    """Merge checkpoints of the same architecture: average or combine them. Needs memory for only one tensor at a time.

    Examples:

        statedict merge epoch-8.pt epoch-9.pt epoch-10.pt -o average.pt

        statedict merge a.safetensors b.safetensors --method slerp --weight 0.3 -o between.safetensors

        statedict merge math.pt code.pt --method task_arithmetic --base base.pt --weight 0.5 --weight 0.5 -o both.pt
    """
    keep_inputs(output, *files, base, option="--output")
    with ExitStack() as stack:
        states = [stack.enter_context(opened(file)).state_dict(root) for file in files]
        under = stack.enter_context(opened(base)).state_dict(root) if base else None
        weights = weight[0] if weight and method == "slerp" and len(weight) == 1 else weight
        asked = {"--method": method != "average", "--weight": weight, "--base": base}
        with warnings_told(), as_bad_parameter(asked):
            merged = statedict.merge(states, method=method, weights=weights or None, base=under)
        with showing(merged, f"writing {output}") as shown:
            statedict.save(shown, target(output), format=format)
        tensors = sum(1 for _ in merged.leaves())
    written = {"schema": 1, "file": output, "method": method, "tensors": tensors, "bytes": merged.nbytes}
    line = f"{output}: {method} of {count(len(files), 'file')}, {count(tensors, 'tensor')}, {size(merged.nbytes)}"
    tell(json.dumps(written) if as_json else line, err=output == STREAM)
