"""`statedict convert`: one state dict of a file into another file: another format, part of it, other names or dtypes."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import statedict
from statedict.report import count, size
from statedict.state import DTYPES, StateDict, matcher

from ._progress import showing

if TYPE_CHECKING:
    from statedict.plan import KeyMap


def convert(
    source: Annotated[Path, typer.Argument(help="The checkpoint to read.", show_default=False)],
    destination: Annotated[str, typer.Argument(help="The file to write; `-` is standard output.", show_default=False)],
    format: Annotated[
        str | None, typer.Option(help="torch, safetensors, npz …; what the destination's name says where left out.")
    ] = None,
    root: Annotated[str, typer.Option(help="The state dict at this path in the file.")] = "auto",
    include: Annotated[list[str] | None, typer.Option(help="Only names that match; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not the names that match; may be repeated.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="'OLD -> NEW'", help="A renaming rule; may be repeated.")
    ] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="A file of renaming rules, as KeyMap.to_toml writes.")
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PATTERN=]DTYPE", help="Floating-point tensors (that match) as this; the last one counts."
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Several files of at most this size, such as 5GB, and an index.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was written as JSON, for programs.")] = False,
) -> None:
    """Write a checkpoint's state dict to another file: another format, part of it, other names, other dtypes.

    Reads one tensor at a time, so that files larger than memory are no trouble. The destination is replaced as a whole or
    not at all; ties stay ties.

    Examples:

        statedict convert model.pt model.safetensors

        statedict convert run.ckpt encoder.pt --root ema --include encoder --rename 'encoder.{*p} -> {*p}'

        statedict convert model.pt small.safetensors --dtype bfloat16 --dtype '*.norm.*=float32'

        statedict convert model.pt shards --format safetensors --max-shard-size 5GB
    """
    with statedict.open(source) as checkpoint:
        state = checkpoint.state_dict(root)
        state = _chosen(state, include or [], exclude or [])
        state = _cast(_renamed(state, rename or [], map_file), dtype or [])
        with showing(state, f"writing {destination}") as shown:
            target = sys.stdout.buffer if destination == "-" else destination
            statedict.save(shown, target, format=format, max_shard_size=max_shard_size)
        tensors = sum(1 for _ in state.leaves())
    if as_json:
        told = json.dumps({"schema": 1, "file": destination, "tensors": tensors, "bytes": state.nbytes})
    else:
        told = f"{destination}: {count(tensors, 'tensor')}, {size(state.nbytes)}"
    typer.echo(told, err=destination == "-")


def _chosen(state: StateDict, include: Sequence[str], exclude: Sequence[str]) -> StateDict:
    chosen = state.select(*include) if include else state
    chosen = chosen.drop(*exclude)
    if state and not chosen:
        raise typer.BadParameter(f"none of the {count(len(state), 'name')} is left", param_hint="--include, --exclude")
    return chosen


def key_map(rules: Sequence[str], file: Path | None) -> KeyMap:
    """The renaming rules of the options `--map` and `--rename`, in that order."""
    try:
        saved = [statedict.KeyMap.from_toml(file.read_text())] if file else []
        return statedict.KeyMap([*saved, *rules])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rename, --map") from error


def _renamed(state: StateDict, rules: Sequence[str], file: Path | None) -> StateDict:
    """The state under its new names; rules that fit nothing are told on standard error."""
    names = key_map(rules, file)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        renamed = names.rename(state)
    for note in notes:
        typer.echo(f"statedict: {note.message}", err=True)
    return renamed


def _cast(state: StateDict, wanted: Sequence[str]) -> StateDict:
    """The state with the dtypes asked for: of several that fit a name, the last."""
    left = list(state)
    for text in reversed(wanted):
        pattern, _, name = text.rpartition("=")
        if name.removeprefix("torch.") not in DTYPES or not DTYPES[name.removeprefix("torch.")].is_floating:
            known = ", ".join(key for key, value in DTYPES.items() if value.is_floating)
            raise typer.BadParameter(f"{name!r} is no floating-point dtype; there are {known}", param_hint="--dtype")
        fits = matcher(pattern) if pattern else lambda _: True
        cast = state.to(name)
        chosen = [n for n in left if fits(n)]
        state = state | {n: cast.leaf(n) for n in chosen if cast.leaf(n) is not None}
        left = [n for n in left if not fits(n)]
    return state
