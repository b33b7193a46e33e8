"""The table of formats: told by their bytes, never by their suffix alone; each with its reader and its writer.

A new format is a row here, and a file beside this one. Readers are imported when a file of theirs turns up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, cast

from statedict import files
from statedict.files import Durable, File, Part
from statedict.state import StateDict, collector_paused

from ..errors import FormatError, SaveError
from ._limits import LIMITS, Limits
from .checkpoint._checkpoint import Checkpoint

# Bytes of a file's beginning: enough for every signature (tar's is at byte 257) and to tell text from bytes.
HEAD = 512
# What a directory of torch.distributed.checkpoint has: one file of metadata, or one of each rank.
METADATA_OF_ALL = ".metadata"
METADATA = re.compile(r"(?:__\d{1,9})?\.metadata")


class Format(NamedTuple):
    """A format that is told by how its files begin. `read` is `module:function`, taking a File and Limits."""

    name: str
    begins: Callable[[bytes, File], bool]
    read: str


class Writer(NamedTuple):
    """How a format is written. `parts` is `module:function`, taking the object and its metadata, giving Parts."""

    suffixes: tuple[str, ...]
    parts: str


def open(source: Any, *, limits: Limits = LIMITS) -> Checkpoint:
    """The checkpoint in a file: a path, or a seekable binary file object, which is read from where it stands. A directory's
    path is the checkpoint that its files are: shards, with their index or numbered, or torch.distributed.checkpoint's.

    Nothing of the file is run, and no tensor is read; what can be checked without that has been checked.

    Raises UnknownFormatError where its bytes are no format that is read here, another FormatError (TruncatedError,
    LimitError …) where it is damaged, OSError where it cannot be opened.

    >>> import io, numpy as np
    >>> from statedict import formats
    >>> file = io.BytesIO()
    >>> formats.write({"weight": np.ones(3)}, file, format="safetensors")
    >>> _ = file.seek(0)
    >>> formats.open(file).object["weight"].spec.shape
    (3,)
    """
    folder = _directory_of(source)
    if folder is not None:
        return cast(Checkpoint, function(DIRECTORY)(folder, limits))
    try:
        file = files.open(source)
    except FileNotFoundError as error:
        if isinstance(source, (str, os.PathLike)) and os.path.isfile(index := f"{os.fspath(source)}.index.json"):
            error.strerror = f"{error.strerror}; it was saved in shards: open {index}"
        raise
    try:
        with collector_paused():
            return read(file, limits)
    except BaseException as error:
        file.close()
        if isinstance(error, FormatError):
            error.located(file=file.name)
        raise


def read(file: File, limits: Limits) -> Checkpoint:
    """The checkpoint in an open File, by the first row of the table that knows how it begins."""
    head = head_of(file)
    for row in FORMATS:
        if row.begins(head, file):
            return cast(Checkpoint, function(row.read)(file, limits))
    from ._mistaken import unknown

    raise unknown(file, head)


def head_of(file: File) -> bytes:
    """The first bytes of a file, by which it is told what it is."""
    return file.read(0, min(file.size, HEAD))


def function(place: str) -> Callable[..., Any]:
    """The function that a row names as `module:function`; its module is imported here."""
    module, _, name = place.partition(":")
    return cast("Callable[..., Any]", getattr(import_module(module, __package__), name))


def write(
    obj: Any,
    target: Any,
    *,
    format: str | None = None,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | str | None = None,
    durable: Durable = True,
    substitute: Callable[[Any], Any] = lambda value: value,
) -> None:
    """Write a tree with arrays, of any library or read from another file, to a path or a binary file object.

    A path gets all of it or keeps what it has. Tensors are written as the elements that they show; tied ones stay tied.
    `format` is a name of the table (`"torch"`, `"safetensors"`, `"npz"`); None goes by the path's suffix, and is `"torch"`
    for a path without one. `metadata` is kept with the file, name to text.
    `max_shard_size`: bytes, or text as `"5GB"`: a state dict
    larger than this becomes several files, and `path` with `.index.json` their index. `durable`: see
    `statedict.files.write`.

    `substitute` gives what is written in the place of an object that is not plain data (or the object itself).

    Raises SaveError where a value cannot be written in that format, or not be loaded again (nothing was touched then),
    DiskFullError, OSError.
    """
    if isinstance(target, (str, os.PathLike)) and not os.path.basename(os.fspath(target)):
        raise SaveError(f"{os.fspath(target)!r} names a directory: give the name of a file in it")
    name = format or _by_suffix(target)
    if name not in WRITERS:
        raise SaveError(f"format must be one of {', '.join(map(repr, WRITERS))}, not {name!r}")
    parts: Callable[..., list[Part]] = partial(_with_texts, function(WRITERS[name].parts))
    if name == "torch":
        parts = partial(parts, substitute=substitute)
    if max_shard_size is None:
        with collector_paused():
            files.write(target, parts(obj, metadata), durable=durable)
    elif not isinstance(target, (str, os.PathLike)):
        raise SaveError("shards are several files: they need a path, not a file object")
    else:
        function(SHARDED)(obj, os.fspath(target), parts, max_shard_size, metadata, durable)


def _with_texts(
    parts: Callable[..., list[Part]], obj: Any, metadata: Mapping[str, str] | None, **options: Any
) -> list[Part]:
    """The parts of a file, with the text that was kept with the file that `obj` is from, if the format can hold that."""
    texts = getattr(obj, "texts", None) if isinstance(obj, StateDict) else None
    if texts:
        with suppress(SaveError):
            return parts(obj, {**texts, **(metadata or {})}, **options)
    return parts(obj, metadata, **options)


def _by_suffix(target: Any) -> str:
    suffix = os.path.splitext(os.fspath(target))[1].lower() if isinstance(target, (str, os.PathLike)) else ""
    found = next((name for name, writer in WRITERS.items() if suffix in writer.suffixes), None)
    if found is None and re.fullmatch(r"\.[a-z]\w*", suffix):
        known = ", ".join(suffix for writer in WRITERS.values() for suffix in writer.suffixes)
        raise SaveError(
            f"{os.fspath(target)}: no format that is written here has the suffix {suffix!r}; known are {known}. "
            f"Or say which is meant: format={', '.join(map(repr, WRITERS))}"
        )
    return found or "torch"


def _directory_of(source: Any) -> str | None:
    """The directory that a path is, or whose metadata file it is; None for anything else."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = os.fspath(source)
    if METADATA.fullmatch(os.path.basename(path)):
        path = os.path.dirname(path) or os.curdir
    return path if os.path.isdir(path) else None


def _is_zip(head: bytes, file: File) -> bool:
    return head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\6\6")


def _is_safetensors(head: bytes, file: File) -> bool:
    # Nothing else begins with a length and a brace; a length that no file has is left to be unknown.
    return head[8:9] == b"{" and head[6:8] == b"\0\0"


def is_index(head: bytes, file: File) -> bool:
    """Whether a file is a JSON object. (A safetensors file may begin with the same byte, but not with the next.)"""
    return re.match(rb'\s*\{\s*["}]', head) is not None


def _is_array(head: bytes, file: File) -> bool:
    return head[:6] == b"\x93NUMPY"


def _is_tar(head: bytes, file: File) -> bool:
    return head[257:262] == b"ustar"


def _may_be_pickle(head: bytes, file: File) -> bool:
    # Protocols from 2 on say so; before that any of these opcodes can be the first.
    return head[:1] in PICKLE_BEGINS


PICKLE_BEGINS = [bytes([code]) for code in b"\x80(}])cIKMJLFGSUVXTN"]
FORMATS = (
    Format("zip", _is_zip, "._zip_formats:read_zip"),
    Format("safetensors", _is_safetensors, ".safetensors._read:read_safetensors"),
    Format("npy", _is_array, ".numpy_files._read:read_npy"),
    Format("torch-tar", _is_tar, ".torch_files._tar:read_torch_tar"),
    Format("pickle", _may_be_pickle, ".torch_files._bare_pickle:read_pickles"),
    Format("index", is_index, ".many_files._shards:read_index"),
)
DIRECTORY = ".many_files._directory:open_directory"
SHARDED = ".many_files._shards_write:write_sharded"
WRITERS = {
    "torch": Writer(
        (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".th", ".tar", ".model"), ".torch_files._write:torch_parts"
    ),
    "safetensors": Writer((".safetensors",), ".safetensors._write:safetensors_parts"),
    "npz": Writer((".npz",), ".numpy_files._write:npz_parts"),
    "npy": Writer((".npy",), ".numpy_files._write:npy_parts"),
}
