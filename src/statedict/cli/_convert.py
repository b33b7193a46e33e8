"""`statedict convert`: what a file holds into another file: another format, part of it, other names or dtypes."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import statedict
from statedict.formats import byte_count
from statedict.report import count, size
from statedict.state import DTYPES, Compound, Leaf, StateDict, matcher, tensors_of

from ._inputs import INDEX, chosen, is_in_place, keep_inputs, tell_idle
from ._mistake import told_as
from ._options import Exclude, File, Format, Include, MapFile, Rename, Told
from ._progress import nbytes_of, showing
from ._streams import STREAM, opened, target, tell

if TYPE_CHECKING:
    from statedict import Checkpoint
    from statedict.plan import KeyMap

WHOLE = "*"


def convert(
    source: File,
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="The file to write; `-` is standard output.")
    ],
    format: Format = None,
    root: Annotated[
        str,
        typer.Option(metavar="PATH", help="The state dict at this path in the file; `*` is all that the file holds."),
    ] = "auto",
    include: Include = None,
    exclude: Exclude = None,
    rename: Rename = None,
    map_file: MapFile = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PATTERN=]DTYPE", help="Floating-point tensors (that match) as this; the last one counts."
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Several files of at most this size, such as 5GB, and an index.")
    ] = None,
    as_json: Told = False,
) -> None:
    """Write a checkpoint's state dict to another file: another format, part of it, other names, other dtypes.

    Reads one tensor at a time, so that files larger than memory are no trouble. The destination is replaced as a whole or
    not at all; ties stay ties. What is left behind in the source is told.

    Examples:

        statedict convert model.pt model.safetensors

        statedict convert run.ckpt encoder.pt --root ema --include encoder --rename 'encoder.{*p} -> {*p}'

        statedict convert model.pt small.safetensors --dtype bfloat16 --dtype '*.norm.*=float32'

        statedict convert model.pt sharded.safetensors --max-shard-size 5GB

        statedict convert old-run.pt run.pt --root '*'
    """
    if max_shard_size is not None:
        with told_as({"--max-shard-size": max_shard_size}):
            byte_count(max_shard_size)
    asked = include or [], exclude or [], rename or [], map_file, dtype or []
    keep_inputs(destination, map_file, option="DESTINATION")
    in_place = is_in_place(destination, source)
    with opened(source) as checkpoint:
        if root == WHOLE:
            made = _whole(checkpoint, any(asked))
        else:
            state = checkpoint.state_dict(root)
            left = _left(checkpoint, state)
            made = _made(state, *asked)
            if in_place:
                _refuse_loss(destination, [*left, *_dropped(state, *asked[:2])])
            elif left and root == "auto":
                _tell_left(left)
        with showing(made, f"writing {destination}") as shown:
            metadata = checkpoint.texts if root == WHOLE else None
            statedict.save(shown, target(destination), format=format, max_shard_size=max_shard_size, metadata=metadata)
        _tell_lost(checkpoint, destination)
    written, files = _written(destination, max_shard_size is not None)
    tensors, nbytes = sum(isinstance(value, (Leaf, Compound)) for value in tensors_of(made)), nbytes_of(made)
    if as_json:
        told = json.dumps({"schema": 1, "file": written, "shards": files, "tensors": tensors, "bytes": nbytes})
    else:
        told = f"{written}: {count(tensors, 'tensor')}, {size(nbytes)}" + (f", in {files} files" if files > 1 else "")
    tell(told, err=destination == STREAM)


def _whole(checkpoint: Checkpoint, changed: bool) -> Any:
    """All that the file holds, as it is."""
    if changed:
        raise typer.BadParameter(
            "`*` is the file as it is; the other options are about one state dict", param_hint="--root"
        )
    checkpoint.require_safe()
    return checkpoint.object


def _left(checkpoint: Checkpoint, taken: StateDict) -> list[str]:
    """What else the file holds: only one state dict is written."""
    roots = [path for path, state in checkpoint.roots.items() if state is not taken]
    held = checkpoint.object if taken is not checkpoint.roots.get("") else {}
    first = {path.partition("/")[0] for path in checkpoint.roots}
    return [*roots, *(str(key) for key in held if str(key) not in first)] if isinstance(held, dict) else roots


def _tell_left(left: Sequence[str]) -> None:
    """Say on standard error what is not written."""
    tell(
        f"statedict: left behind: {_few(left)} (--root PATH takes another state dict, --root '*' everything)", err=True
    )


def _dropped(state: StateDict, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The names that the options leave out."""
    fits, drops = matcher(include) if include else lambda name: True, matcher(exclude)
    return [name for name in state if drops(name) or not fits(name)]


def _refuse_loss(destination: str, left: Sequence[str]) -> None:
    """Refuse to replace a file by a part of it."""
    if left:
        raise typer.BadParameter(
            f"{destination} is the file that is read, and {_few(left)} in it would be lost; name another file",
            param_hint="DESTINATION",
        )


def _tell_lost(checkpoint: Checkpoint, destination: str) -> None:
    """Say, on standard error, which text kept with the file the new format has no room for."""
    if not checkpoint.texts or destination == STREAM:
        return
    index = destination + INDEX
    with statedict.open(index if os.path.exists(index) else destination) as new:
        lost = [name for name in checkpoint.texts if name not in new.texts]
    if lost:
        tell(f"statedict: left behind: the file's metadata {_few(lost)}, which this format has no room for", err=True)


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:FEW])) + (", …" if len(names) > FEW else "")


def _written(destination: str, sharded: bool) -> tuple[str, int]:
    """The file that opens what was written, and how many files hold its tensors."""
    index = destination + INDEX
    if not sharded or not os.path.exists(index):
        return destination, 1
    return index, len(set(json.loads(Path(index).read_text())["weight_map"].values()))


def _made(
    state: StateDict,
    include: Sequence[str],
    exclude: Sequence[str],
    rename: Sequence[str],
    map_file: Path | None,
    dtypes: Sequence[str],
) -> StateDict:
    """The state that the options ask for; nothing of it is read yet."""
    return _cast(_renamed(_chosen(state, include, exclude), rename, map_file), dtypes)


def _chosen(state: StateDict, include: Sequence[str], exclude: Sequence[str]) -> StateDict:
    (part,) = chosen([state], include, exclude)
    if state and not part:
        raise typer.BadParameter(f"none of the {count(len(state), 'name')} is left", param_hint="--include, --exclude")
    return part


def key_map(rules: Sequence[str], file: Path | None) -> KeyMap:
    """The renaming rules of the options `--map` and `--rename`, in that order."""
    with told_as({"--rename": rules, "--map": file}):
        saved = [statedict.KeyMap.from_toml(file.read_text())] if file else []
        return statedict.KeyMap([*saved, *rules])


def _renamed(state: StateDict, rules: Sequence[str], file: Path | None) -> StateDict:
    """The state under its new names; rules that fit nothing are told on standard error."""
    names = key_map(rules, file)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        with told_as({"--rename": rules, "--map": file}):
            renamed = names.rename(state)
    for note in notes:
        tell(f"statedict: {note.message}", err=True)
    return renamed


def _cast(state: StateDict, wanted: Sequence[str]) -> StateDict:
    """The state with the dtypes asked for: of several that fit a name, the last."""
    left = list(state)
    tell_idle([text.rpartition("=")[0] for text in wanted if "=" in text], [state])
    for text in reversed(wanted):
        pattern, _, name = text.rpartition("=")
        if name.removeprefix("torch.") not in DTYPES or not DTYPES[name.removeprefix("torch.")].is_floating:
            known = ", ".join(key for key, value in DTYPES.items() if value.is_floating)
            raise typer.BadParameter(f"{name!r} is no floating-point dtype; there are {known}", param_hint="--dtype")
        fits = matcher(pattern) if pattern else lambda _: True
        cast = state.to(name)
        fitting = [n for n in left if fits(n)]
        state = state | {n: cast.leaf(n) for n in fitting if cast.leaf(n) is not None}
        left = [n for n in left if not fits(n)]
    return state


FEW = 8
