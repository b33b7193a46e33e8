"""`statedict convert`: write a checkpoint to another file, in another format, in part, or with other names or dtypes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

import statedict
from statedict.files import system
from statedict.formats import byte_count, writer_for
from statedict.report import count, size
from statedict.state import DTYPES, Compound, DType, Leaf, StateDict, dtype, matcher, tensors_of

from ._command import Argument, Option
from ._complete import dtypes
from ._files import (
    INDEX,
    STREAM,
    chosen,
    is_in_place,
    keep_inputs,
    note,
    opened,
    shards,
    target,
    tell,
    tell_unmatched,
    warnings_told,
)
from ._key_map import Inverse, Map, Param, key_map
from ._options import Exclude, File, Format, Include, JsonSummary, Rename, as_bad_parameter
from ._progress import nbytes_of, showing

if TYPE_CHECKING:
    from statedict import Checkpoint
    from statedict.plan import KeyMap

WHOLE = "*"


Destination = Annotated[str, Argument(metavar="DESTINATION", help="The file to write; `-` is standard output.")]
RootOrWhole = Annotated[
    str, Option(metavar="PATH", help="The state dict at this path in the file; `*` is the whole file.")
]
Dtypes = Annotated[
    tuple[str, ...],
    Option(
        metavar="[PATTERN=]DTYPE",
        completed=dtypes,
        help="Cast floating-point tensors (that match PATTERN) to DTYPE (repeatable; the last match is used).",
    ),
]
MaxShardSize = Annotated[
    str | None, Option(metavar="SIZE", help="Split into files of at most this size, such as 5GB, and an index.")
]


def convert(
    source: File,
    destination: Destination,
    format: Format = None,
    root: RootOrWhole = "auto",
    include: Include = (),
    exclude: Exclude = (),
    rename: Rename = (),
    map_name: Map = None,
    inverse: Inverse = False,
    param: Param = (),
    dtype: Dtypes = (),
    max_shard_size: MaxShardSize = None,
    as_json: JsonSummary = False,
) -> None:
    """Convert a checkpoint's state dict to another file: change its format, select a part, rename or cast tensors.

    Reads one tensor at a time, so files may be larger than memory. The destination is replaced atomically; tied tensors
    stay tied. Reports what was not converted.

    Examples:

        statedict convert model.pt model.safetensors

        statedict convert run.ckpt encoder.pt --root ema --include encoder --rename 'encoder.{*p} -> {*p}'

        statedict convert model.pt small.safetensors --dtype bfloat16 --dtype '*.norm.*=float32'

        statedict convert consolidated.00.pth model.safetensors --map llama-hf --param head_dim=128

        statedict convert model.pt sharded.safetensors --max-shard-size 5GB

        statedict convert old-run.pt run.pt --root '*'
    """
    if max_shard_size is not None:
        with as_bad_parameter({"--max-shard-size": max_shard_size}):
            byte_count(max_shard_size)
    keep_inputs(destination, map_name, option="DESTINATION")
    names = key_map(rename, map_name, inverse, param, source)
    in_place = is_in_place(destination, source)
    with opened(source) as checkpoint:
        if root == WHOLE:
            made = _whole(checkpoint, any((include, exclude, names.rules, dtype)))
        else:
            state = checkpoint.state_dict(root)
            part = _chosen(state, include, exclude)
            made = _cast(_renamed(part, names, {"--rename": rename, "--map": map_name}), dtype)
            others = _others(checkpoint, state)
            if in_place:
                _refuse_loss(destination, [*others, *(name for name in state if name not in part)])
            elif others and root == "auto":
                note(
                    f"not converted: {_few(others)} (use --root PATH for another state dict, --root '*' for everything)"
                )
        if in_place and system.MUST_CLOSE:
            raise click.BadParameter(
                f"{destination} is also the input file, which cannot be replaced while it is open; choose another file",
                param_hint="DESTINATION",
            )
        with showing(made, f"writing {destination}") as shown:
            metadata = checkpoint.texts if root == WHOLE else None
            statedict.save(shown, target(destination), format=format, max_shard_size=max_shard_size, metadata=metadata)
        _report_lost(checkpoint, destination)
    written, files = _written(destination, max_shard_size is not None)
    kind = writer_for(format, destination).name
    tell(_summary(written, kind, files, made, as_json), err=destination == STREAM)


def _summary(file: str, kind: str, files: int, made: Any, as_json: bool) -> str:
    """Return the line about what was written: `file` is the one to open, one of several if the tensors are in shards."""
    tensors, nbytes = sum(isinstance(value, (Leaf, Compound)) for value in tensors_of(made)), nbytes_of(made)
    if as_json:
        facts = {"file": file, "format": kind, "shards": files, "tensors": tensors, "bytes": nbytes}
        return json.dumps({"schema": 1, **facts})
    return f"{file}: {kind}, {count(tensors, 'tensor')}, {size(nbytes)}" + (f", in {files} files" if files > 1 else "")


def _whole(checkpoint: Checkpoint, changed: bool) -> Any:
    """Return the whole content of the file."""
    if changed:
        raise click.BadParameter(
            "`*` copies the whole file and cannot be combined with options for one state dict", param_hint="--root"
        )
    checkpoint.require_safe()
    checkpoint.require_whole()
    return checkpoint.object


def _others(checkpoint: Checkpoint, taken: StateDict) -> list[str]:
    """Return what else the file contains: only one state dict is written."""
    roots = [path for path, state in checkpoint.roots.items() if state is not taken]
    held = checkpoint.object if taken is not checkpoint.roots.get("") else {}
    first = {path.partition("/")[0] for path in checkpoint.roots}
    return [*roots, *(str(key) for key in held if str(key) not in first)] if isinstance(held, dict) else roots


def _refuse_loss(destination: str, lost: Sequence[str]) -> None:
    """Refuse to replace a file by a part of it."""
    if lost:
        raise click.BadParameter(
            f"{destination} is also the input file, and {_few(lost)} in it would be lost; choose another file",
            param_hint="DESTINATION",
        )


def _report_lost(checkpoint: Checkpoint, destination: str) -> None:
    """Report on standard error which metadata texts of the file the new format cannot store."""
    if not checkpoint.texts or destination == STREAM:
        return
    index = destination + INDEX
    with statedict.open(index if os.path.exists(index) else destination) as new:
        lost = [name for name in checkpoint.texts if name not in new.texts]
    if lost:
        note(f"not converted: the file's metadata {_few(lost)}, which this format cannot store")


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:FEW])) + (", …" if len(names) > FEW else "")


def _written(destination: str, sharded: bool) -> tuple[str, int]:
    """Return the file to open (the index, if there is one), and the number of files with tensors."""
    index = destination + INDEX
    if not sharded or not os.path.exists(index):
        return destination, 1
    return index, len(shards(Path(index)))


def _chosen(state: StateDict, include: Sequence[str], exclude: Sequence[str]) -> StateDict:
    (part,) = chosen([state], include, exclude)
    if state and not part:
        raise click.BadParameter(f"none of the {count(len(state), 'name')} matches", param_hint="--include, --exclude")
    return part


def _renamed(state: StateDict, names: KeyMap, options: dict[str, object]) -> StateDict:
    """Return the renamed state; reports on standard error the rules that do not match any name."""
    with warnings_told(), as_bad_parameter(options):
        return names.rename(state)


def _cast(state: StateDict, wanted: Sequence[str]) -> StateDict:
    """Return the state with the requested dtypes; if several match a name, the last is used."""
    left = list(state)
    tell_unmatched([text.rpartition("=")[0] for text in wanted if "=" in text], [state])
    for text in reversed(wanted):
        pattern, _, name = text.rpartition("=")
        fits = matcher(pattern) if pattern else lambda _: True
        cast = state.to(_floating(name))
        fitting = [n for n in left if fits(n)]
        state = state | {n: cast.leaf(n) for n in fitting if cast.leaf(n) is not None}
        left = [n for n in left if not fits(n)]
    return state


def _floating(name: str) -> DType:
    """Return the floating-point dtype of this name, which may be a short one such as `bf16`."""
    with suppress(KeyError):
        found = dtype(name)
        if found.is_floating:
            return found
    known = ", ".join(key for key, value in DTYPES.items() if value.is_floating)
    raise click.BadParameter(f"{name!r} is not a floating-point dtype; use one of {known}", param_hint="--dtype")


FEW = 8
