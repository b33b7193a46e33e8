"""`statedict merge`: merge several checkpoints into one."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Annotated, Any

import statedict
from statedict.report import count, size

from ._adapter_folder import save_adapter
from ._command import Argument, Option
from ._complete import methods
from ._files import STREAM, keep_inputs, opened, target, tell, warnings_told
from ._options import Format, JsonSummary, SharedRoot, as_bad_parameter, option
from ._progress import showing

Files = Annotated[tuple[str, ...], Argument(metavar="FILE", help="The checkpoints to merge.")]
Output = Annotated[str, Option("--output", "-o", metavar="FILE", help="The file to write; `-` is standard output.")]
Method = Annotated[
    str,
    Option(
        metavar="NAME",
        completed=methods,
        help="average, ema (needs --decay), slerp (of two files), task_arithmetic (needs --base), ties, dare_linear, "
        "dare_ties (need --base and --density), lora (the base, then adapters), extract_lora (needs --base and "
        "--rank), or union (of different names).",
    ),
]
Weights = Annotated[
    tuple[float, ...],
    Option(
        metavar="NUMBER",
        help="One weight for each file, in order; for lora, one for each adapter; for slerp, one number from 0 to 1.",
    ),
]
Base = Annotated[str | None, Option(metavar="FILE", help="The checkpoint that the others were trained from.")]
Density = Annotated[float | None, Option(metavar="NUMBER", help="The share of each difference to keep, at most 1.")]
Decay = Annotated[
    float | None, Option(metavar="NUMBER", help="For ema: the weight of the average so far, from 0 to 1.")
]
Seed = Annotated[int | None, Option(metavar="NUMBER", help="Seed of the random elements of DARE (default 0).")]
Rank = Annotated[int | None, Option(metavar="NUMBER", help="For extract_lora: the rank of the adapter.")]


def merge(
    files: Files,
    output: Output,
    method: Method = "average",
    weight: Weights = (),
    base: Base = None,
    density: Density = None,
    decay: Decay = None,
    seed: Seed = None,
    rank: Rank = None,
    root: SharedRoot = "auto",
    format: Format = None,
    as_json: JsonSummary = False,
) -> None:
    """Merge checkpoints of the same architecture, merge a LoRA into its base model, or extract a LoRA.

    Processes one tensor at a time, so files may be larger than memory.

    Examples:

        statedict merge epoch-8.pt epoch-9.pt epoch-10.pt -o average.pt

        statedict merge a.safetensors b.safetensors --method slerp --weight 0.3 -o between.safetensors

        statedict merge math.pt code.pt --method task_arithmetic --base base.pt --weight 0.5 --weight 0.5 -o both.pt

        statedict merge base.safetensors adapter/ --method lora -o merged.safetensors

        statedict merge tuned.safetensors --method extract_lora --base base.safetensors --rank 16 -o extracted/
    """
    keep_inputs(output, *files, base, option="--output")
    with ExitStack() as stack:
        sources = [stack.enter_context(opened(file)) for file in files]
        under = stack.enter_context(opened(base)) if base else None
        weights = weight[0] if method == "slerp" and len(weight) == 1 else list(weight)
        numbers: dict[str, Any] = {"density": density, "decay": decay, "seed": seed, "rank": rank}
        asked = {"--method": method != "average", "--weight": weight, "--base": base}
        asked |= {option(name): number is not None for name, number in numbers.items()}
        with warnings_told(), as_bad_parameter(asked):
            merged = statedict.merge(sources, method, weights=weights or None, base=under, root=root, **numbers)
        with showing(merged, f"writing {output}") as shown:
            if method == "extract_lora":
                save_adapter(shown, merged.texts or {}, output)
            else:
                statedict.save(shown, target(output), format=format)
        tensors = sum(1 for _ in merged.leaves())
    written = {"schema": 1, "file": output, "method": method, "tensors": tensors, "bytes": merged.nbytes}
    line = f"{output}: {method} of {count(len(files), 'file')}, {count(tensors, 'tensor')}, {size(merged.nbytes)}"
    tell(json.dumps(written) if as_json else line, err=output == STREAM)
