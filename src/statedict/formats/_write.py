"""Write a file in the format with a given name or suffix. The table of writers is at the end."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from statedict import files
from statedict.files import Durable, Frame, JointWriter, Part, Payload
from statedict.state import Leaf, StateDict, collector_paused

from ..errors import SaveError
from ._format import Format, function
from ._names import INDEX


def write(
    obj: Any,
    target: Any,
    *,
    format: str | None = None,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | str | None = None,
    durable: Durable = True,
    substitute: Callable[[Any], Any] = lambda value: value,
    together: JointWriter | None = None,
) -> None:
    """Write a tree with arrays of any library, or arrays read from another file, to a path, a URL or a binary file object.

    A path or an object in a store is replaced atomically. Shards of an earlier save to the same path are deleted.

    A tensor is written as its own elements, not its whole storage; tied tensors stay
    tied. `format` is a name from the table (`"torch"`, `"safetensors"`, `"npz"`) or of a plugin's format; None chooses by
    the suffix of the path, `"torch"` for a path without one. `metadata` is stored in the file and maps strings to strings.
    `max_shard_size` is in bytes, or text such as `"5GB"`: a larger state dict is split into several files, with an
    index at `path` plus `.index.json`. `durable`: see `statedict.files.write`.

    `substitute` returns what to write instead of an object that is not plain data (or the object itself). `together`: write
    together with other processes, which have parts of the tensors.

    Raises SaveError if a value cannot be written in that format or could not be loaded again (nothing is changed then),
    DiskFullError, OSError.
    """
    if isinstance(target, (str, os.PathLike)) and not os.path.basename(os.fspath(target)):
        raise SaveError(f"{os.fspath(target)!r} is a directory: pass the path of a file in it")
    row = writer_for(format, target)
    if together is not None:
        _require_joint(target, row)
    fill = files.fill if together is None else together.fill
    parts: Callable[..., list[Part]] = partial(_with_texts, row)
    if row.name == "torch":
        parts = partial(parts, substitute=substitute)
    local = files.local_path(target) if isinstance(target, (str, os.PathLike)) else None
    path = None if local is None else os.fspath(local)
    if max_shard_size is None:
        with collector_paused():
            content = parts(obj, metadata)
            if path is not None and os.path.lexists(path + INDEX):
                function(WHOLE)(path, content, durable, fill)
            else:
                files.write(target, content, durable=durable, fill=fill)
    elif not isinstance(target, (str, os.PathLike)):
        raise SaveError("shards are several files: pass a path, not a file object")
    elif path is None:
        raise SaveError(
            f"{files.redacted(os.fspath(target))}: shards are written to local paths only; save one object, or use "
            "CheckpointManager"
        )
    else:
        names = {"names": function(row.names)} if row.names else {}
        function(SHARDED)(obj, path, parts, max_shard_size, metadata, durable, fill=fill, **names)


def parts(obj: Any, *, substitute: Callable[[Any], Any] = lambda value: value) -> list[Part]:
    """Return the parts of the file that `write` writes with `format="torch"`."""
    return _with_texts(WRITERS["torch"], obj, None, substitute=substitute)


def _require_joint(target: Any, row: Format) -> None:
    """Raise SaveError if several processes cannot write this format to this target together."""
    sharded = "the processes that have its parts write the file together"
    if not isinstance(target, (str, os.PathLike)) or files.local_path(target) is None:
        what = "a file object" if hasattr(target, "write") else files.redacted(os.fspath(target))
        raise SaveError(
            f"{what} cannot receive a tensor that is sharded: {sharded}, which needs a local path; "
            "CheckpointManager saves sharded models to a URL"
        )
    if not row.jointly:
        known = ", ".join(repr(name) for name, writer in WRITERS.items() if writer.jointly)
        raise SaveError(
            f"{row.name!r} cannot store a tensor that is sharded: {sharded}; the formats for this are {known}"
        )


def _with_texts(row: Format, obj: Any, metadata: Mapping[str, str] | None, **options: Any) -> list[Part]:
    """Return the parts of a file; keep the metadata of the file that `obj` was read from, if the format can store it."""
    texts = getattr(obj, "texts", None) if isinstance(obj, StateDict) else None
    content = function(row.write)
    if texts:
        with suppress(SaveError):
            return list(map(_part, content(obj, {**texts, **(metadata or {})}, **options)))
    return list(map(_part, content(obj, metadata, **options)))


def _part(item: bytes | Leaf | Part) -> Part:
    """Return a part of a file with the bytes, or the elements of a leaf in row-major order."""
    if isinstance(item, bytes):
        return Frame(len(item), lambda: item)
    if isinstance(item, Leaf):
        from .storages._pack import elements_of

        return Payload(item.spec.nbytes, partial(elements_of, item))
    return item


def writer_for(format: str | None, target: Any) -> Format:
    """Return the row of the format with that name or, if it is None, with the suffix of the target."""
    suffix = os.path.splitext(os.fspath(target))[1].lower() if isinstance(target, (str, os.PathLike)) else ""

    def fits(row: Format) -> bool:
        return row.name == format if format else suffix in row.suffixes

    found = next(filter(fits, WRITERS.values()), None)
    if found is not None or not (format or re.fullmatch(r"\.[a-z]\w*", suffix)):
        return found or WRITERS["torch"]
    from ._entry_points import plugin_writer

    row, tried = plugin_writer(fits)
    if row is not None:
        return row
    others = f" (the plugins do not have it either: {'; '.join(tried)})" if tried else ""
    if format:
        raise SaveError(f"format must be one of {', '.join(map(repr, WRITERS))}, not {format!r}{others}")
    known = ", ".join(suffix for writer in WRITERS.values() for suffix in writer.suffixes)
    raise SaveError(
        f"{os.fspath(target)}: no output format has the suffix {suffix!r}{others}; the known suffixes are {known}. "
        f"Use one of them, or pass format= explicitly: {', '.join(map(repr, WRITERS))}"
    )


SHARDED = ".many_files._shards_write:write_sharded"
WHOLE = ".many_files._shards_write:write_whole"
WRITERS = {
    row.name: row
    for row in (
        Format(
            "torch",
            suffixes=(".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".th", ".tar", ".model"),
            write=".torch_files._write:torch_parts",
            jointly=True,
        ),
        Format(
            "safetensors",
            suffixes=(".safetensors",),
            write=".safetensors._write:safetensors_parts",
            names=".safetensors._aliases:names_in_file",
            jointly=True,
        ),
        Format("npz", suffixes=(".npz",), write=".numpy_files._write:npz_parts"),
        Format("npy", suffixes=(".npy",), write=".numpy_files._write:npy_parts"),
    )
}
