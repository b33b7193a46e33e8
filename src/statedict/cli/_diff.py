"""`statedict diff`: compare two checkpoints."""

from __future__ import annotations

import json
from typing import Annotated

import click

import statedict

from ._command import Argument
from ._files import chosen, opened, state_at, tell
from ._options import AsJson, Exclude, File, Include, SecondRoot, SharedRoot


def diff(
    first: File,
    second: Annotated[str, Argument(metavar="OTHER", help="The checkpoint to compare with.")],
    root: SharedRoot = "auto",
    second_root: SecondRoot = None,
    include: Include = (),
    exclude: Exclude = (),
    as_json: AsJson = False,
) -> None:
    """Compare two checkpoints: names, shapes, dtypes, elements, ties. Their formats may differ.

    Exit code: 0 if they are the same, 1 if they differ, 2 for an error in the arguments or a file.

    Examples:

        statedict diff before.pt after.pt

        statedict diff run.ckpt run.ckpt --root model --second-root ema

        statedict diff model.pt model.safetensors --exclude '*.num_batches_tracked'
    """
    with opened(first) as one, opened(second) as other:
        states = [state_at(one, root), state_at(other, root if second_root is None else second_root)]
        found = statedict.diff(*chosen(states, include, exclude))
    if as_json:
        tell(json.dumps({"schema": 1, **found.to_dict()}))
    else:
        from ._show import say_lines

        say_lines(str(found))
    raise click.exceptions.Exit(1 if found else 0)
