"""The table of formats, recognised by their content and not by their suffix; each has a reader and a writer.

To add a format, add a row here and a module for it. Readers are imported when they are first needed. Formats that are zip
archives have a table of their own: they are recognised by their members.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from statedict import files
from statedict.files import Durable, File, Folder, JointWriter, Part
from statedict.state import StateDict, collector_paused

from ..errors import FormatError, SaveError, TruncatedError, UnknownFormatError
from ._limits import LIMITS, Limits
from .checkpoint._checkpoint import Checkpoint

if TYPE_CHECKING:
    from .zip._archive import Archive

# Number of leading bytes to look at: enough for every signature (that of tar is at byte 257) and to tell text from
# binary.
HEAD = 512
# The suffixes of weights, in order of preference. A directory often has the same weights in several formats.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")
# Files beside the weights that have a known role in training: of transformers, accelerate, skorch, and many scripts.
ROLE = re.compile(
    r"(?P<stem>optimizer|optim|lr_scheduler|scheduler|scaler|sampler|random_states|rng_state|custom_checkpoint)"
    r"(?:_(?P<number>\d{1,9}))?\.(?:pt|pth|bin|pkl|safetensors)"
)
# Folders, or files, that are one step of a run: of transformers, accelerate, torchtitan, DeepSpeed, Megatron, Lightning.
STEP = re.compile(
    r"(?:checkpoint[-_]|step[-_]|global_step|iter_|epoch[-_])(?P<number>\d{1,19})|.*step=(?P<last>\d{1,19})\.ckpt"
)
# Files that name the newest step: of DeepSpeed and Megatron.
MARKERS = ("latest", "latest_universal", "latest_checkpointed_iteration.txt")
# torch.distributed.checkpoint writes one metadata file, or one per rank.
METADATA = re.compile(r"(?:__\d{1,9})?\.metadata")

# DeepSpeed writes model states, and one file or more of optimizer states.
DEEPSPEED = re.compile(r".+[_-](?:model|optim)_states\.pt")


class Format(NamedTuple):
    """A format of files recognised by how they begin, or of folders recognised by the names in them.

    `read` is `module:function`, which takes a File, or a Folder, and Limits.
    """

    name: str
    read: str
    begins: Callable[[bytes, File], bool] = lambda head, file: False
    holds: Callable[[Folder], bool] = lambda folder: False


class ZipFormat(NamedTuple):
    """A format that is a zip archive. `read` is `module:function`, which takes a File, Limits and an Archive."""

    name: str
    has: Callable[[Archive], bool]
    read: str


class FormatWriter(NamedTuple):
    """How to write a format. `parts` is `module:function`, which takes an object and its metadata and returns Parts; `names`
    that of a function which returns the names under which the format stores a value, if these are not just its name.
    `jointly`: whether each tensor is a part of its own, so that several processes can write a file together.
    """

    suffixes: tuple[str, ...]
    parts: str
    names: str = ""
    jointly: bool = False


def open(source: Any, *, limits: Limits = LIMITS) -> Checkpoint:
    """Open the checkpoint in `source`: a path, or a seekable binary file object, which is read from its current
    position. The path of a directory opens the checkpoint that its files form: shards with an index, a
    torch.distributed.checkpoint, what a framework saved during training …

    No code from the file is run and no tensor data is read; everything that can be checked without it is checked.

    Raises UnknownFormatError if the format is not recognised, another FormatError (TruncatedError, LimitError …) if the
    file is damaged, and OSError if it cannot be opened.

    >>> import io, numpy as np
    >>> from statedict import formats
    >>> file = io.BytesIO()
    >>> formats.write({"weight": np.ones(3)}, file, format="safetensors")
    >>> _ = file.seek(0)
    >>> formats.open(file).object["weight"].spec.shape
    (3,)
    """
    directory = _directory_of(source)
    if directory is not None:
        with collector_paused():
            return read_folder(Folder(directory), limits)
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
    """Read the checkpoint in an open File with the first format of the table that matches."""
    head = head_of(file)
    for row in FORMATS:
        if row.begins(head, file):
            return cast(Checkpoint, function(row.read)(file, limits))
    from ._foreign_formats import unknown

    raise unknown(file, head)


def read_folder(folder: Folder, limits: Limits) -> Checkpoint:
    """Read the checkpoint in a folder with the first format of the table that matches."""
    row = next((row for row in FOLDERS if row.holds(folder)), FOLDERS[-1])
    try:
        checkpoint = cast(Checkpoint, function(row.read)(folder, limits))
    except BaseException:
        folder.close()
        raise
    checkpoint._close = folder.close
    return checkpoint


def head_of(file: File) -> bytes:
    """Return the first bytes of a file, which identify its format."""
    return file.read(0, min(file.size, HEAD))


def function(place: str) -> Callable[..., Any]:
    """Import and return the function that a row of the table names as `module:function`."""
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
    together: JointWriter | None = None,
) -> None:
    """Write a tree with arrays of any library, or arrays read from another file, to a path or a binary file object.

    A path is replaced atomically. A tensor is written as its own elements, not its whole storage; tied tensors stay
    tied. `format` is a name from the table (`"torch"`, `"safetensors"`, `"npz"`); None chooses by the suffix of the
    path, `"torch"` for a path without one. `metadata` is stored in the file and maps strings to strings.
    `max_shard_size` is in bytes, or text such as `"5GB"`: a larger state dict is split into several files, with an
    index at `path` plus `.index.json`. `durable`: see `statedict.files.write`.

    `substitute` returns what to write instead of an object that is not plain data (or the object itself). `together`: write
    together with other processes, which have parts of the tensors.

    Raises SaveError if a value cannot be written in that format or could not be loaded again (nothing is changed then),
    DiskFullError, OSError.
    """
    if isinstance(target, (str, os.PathLike)) and not os.path.basename(os.fspath(target)):
        raise SaveError(f"{os.fspath(target)!r} is a directory: pass the path of a file in it")
    name = format or _by_suffix(target)
    if name not in WRITERS:
        raise SaveError(f"format must be one of {', '.join(map(repr, WRITERS))}, not {name!r}")
    if together is not None:
        _require_joint(target, name)
    fill = files.fill if together is None else together.fill
    parts: Callable[..., list[Part]] = partial(_with_texts, function(WRITERS[name].parts))
    if name == "torch":
        parts = partial(parts, substitute=substitute)
    if max_shard_size is None:
        with collector_paused():
            files.write(target, parts(obj, metadata), durable=durable, fill=fill)
    elif not isinstance(target, (str, os.PathLike)):
        raise SaveError("shards are several files: pass a path, not a file object")
    else:
        names = {"names": function(WRITERS[name].names)} if WRITERS[name].names else {}
        function(SHARDED)(obj, os.fspath(target), parts, max_shard_size, metadata, durable, fill=fill, **names)


def _require_joint(target: Any, name: str) -> None:
    """Raise SaveError if several processes cannot write this format to this target together."""
    sharded = "the processes that have its parts write the file together"
    if not isinstance(target, (str, os.PathLike)):
        raise SaveError(f"a file object cannot receive a tensor that is sharded: {sharded}, which needs a path")
    if not WRITERS[name].jointly:
        known = ", ".join(repr(other) for other, writer in WRITERS.items() if writer.jointly)
        raise SaveError(f"{name!r} cannot store a tensor that is sharded: {sharded}; the formats for this are {known}")


def _with_texts(
    parts: Callable[..., list[Part]], obj: Any, metadata: Mapping[str, str] | None, **options: Any
) -> list[Part]:
    """Return the parts of a file; keep the metadata of the file that `obj` was read from, if the format can store it."""
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
            f"{os.fspath(target)}: no output format has the suffix {suffix!r}; the known suffixes are {known}. "
            f"Use one of them, or pass format= explicitly: {', '.join(map(repr, WRITERS))}"
        )
    return found or "torch"


def _directory_of(source: Any) -> str | None:
    """Return the directory that `source` names, directly or by its metadata file; None for anything else."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = os.fspath(source)
    if METADATA.fullmatch(os.path.basename(path)):
        path = os.path.dirname(path) or os.curdir
    return path if os.path.isdir(path) else None


def _has_file(pattern: re.Pattern[str]) -> Callable[[Folder], bool]:
    return lambda folder: any(map(pattern.fullmatch, folder.files))


def _is_universal(folder: Folder) -> bool:
    return "zero" in folder.folders and any(map(DEEPSPEED.fullmatch, folder.files))


def is_weights(folder: Folder) -> bool:
    """Return whether a folder has files of weights, or an index of them."""
    return any(name.endswith((*WEIGHTS, ".index.json")) and not ROLE.fullmatch(name) for name in folder.files)


def _is_run(folder: Folder) -> bool:
    return any(map(STEP.fullmatch, (*folder.folders, *folder.files))) or not {*MARKERS}.isdisjoint(folder.files)


def _is_zip(head: bytes, file: File) -> bool:
    return head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\6\6")


def _is_safetensors(head: bytes, file: File) -> bool:
    # No other format begins with a length followed by a brace. An impossible length is left for the fallback.
    return head[8:9] == b"{" and head[6:8] == b"\0\0"


def is_index(head: bytes, file: File) -> bool:
    """Return whether a file is a JSON object. (A safetensors file may begin with the same byte, but not with the same
    two.)
    """
    return re.match(rb'\s*\{\s*["}]', head) is not None


def _is_array(head: bytes, file: File) -> bool:
    return head[:6] == b"\x93NUMPY"


def _is_tar(head: bytes, file: File) -> bool:
    return head[257:262] == b"ustar"


def _may_be_pickle(head: bytes, file: File) -> bool:
    # Protocols 2 and later begin with a header; a pickle of an earlier protocol can begin with any of these opcodes.
    return head[:1] in PICKLE_BEGINS


def read_zip(file: File, limits: Limits) -> Checkpoint:
    """Read the checkpoint in a zip archive with the first format of the table that recognises its members."""
    from .zip._archive import open_zip

    try:
        archive = open_zip(file, limits)
    except TruncatedError as error:
        raise function(".torch_files._truncated:cut_short")(file, error, limits) from error
    for row in ZIP_FORMATS:
        if row.has(archive):
            return cast(Checkpoint, function(row.read)(file, limits, archive))
    named = ", ".join(list(archive.members)[:5]) or "none"
    raise UnknownFormatError(
        f"this is a zip archive, but not a checkpoint; its members: {named}",
        file=file.name,
        hint="if one of them is a checkpoint, unpack the archive and open that file",
    )


def _has_arrays(archive: Archive) -> bool:
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def _has_constants(archive: Archive) -> bool:
    return _has(archive, "data.pkl") and _has(archive, "constants.pkl")


def _has_pickle(archive: Archive) -> bool:
    return _has(archive, "data.pkl")


def _has(archive: Archive, name: str) -> bool:
    """Return whether a member has that name, in any folder. Searching the joined names is faster than testing each one."""
    from .zip._members import text_of

    joined = text_of(archive.members)
    return f"/{name}\n" in f"{joined}\n" or f"\n{name}\n" in f"\n{joined}\n"


PICKLE_BEGINS = [bytes([code]) for code in b"\x80(}])cIKMJLFGSUVXTN"]
FORMATS = (
    Format("zip", "._table:read_zip", begins=_is_zip),
    Format("safetensors", ".safetensors._read:read_safetensors", begins=_is_safetensors),
    Format("npy", ".numpy_files._read:read_npy", begins=_is_array),
    Format("torch-tar", ".torch_files._tar:read_torch_tar", begins=_is_tar),
    Format("pickle", ".torch_files._bare_pickle:read_pickles", begins=_may_be_pickle),
    Format("index", ".many_files._shards:read_index", begins=is_index),
)
ZIP_FORMATS = (
    ZipFormat("torchscript", _has_constants, ".torch_files._torchscript:read_torchscript"),
    ZipFormat("torch", _has_pickle, ".torch_files._read:read_torch_zip"),
    ZipFormat("npz", _has_arrays, ".numpy_files._read:read_npz"),
)
FOLDERS = (
    Format("distributed", ".many_files._distributed:read_distributed", holds=_has_file(METADATA)),
    Format(
        "rank-files", ".many_files._parts:read_parts", holds=_has_file(re.compile(r"shard-\d{5,9}-.+\.safetensors"))
    ),
    Format("deepspeed-universal", ".deepspeed._universal:read_universal", holds=_is_universal),
    Format("deepspeed", ".deepspeed._zero:read_zero", holds=_has_file(DEEPSPEED)),
    Format("directory", ".folders._roles:read_roles", holds=_has_file(ROLE)),
    Format("run", ".folders._steps:read_newest", holds=_is_run),
    Format("weights", ".many_files._weights:read_weights", holds=is_weights),
)
SHARDED = ".many_files._shards_write:write_sharded"
WRITERS = {
    "torch": FormatWriter(
        (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".th", ".tar", ".model"),
        ".torch_files._write:torch_parts",
        jointly=True,
    ),
    "safetensors": FormatWriter(
        (".safetensors",), ".safetensors._write:safetensors_parts", ".safetensors._wrappers:stored_names", jointly=True
    ),
    "npz": FormatWriter((".npz",), ".numpy_files._write:npz_parts"),
    "npy": FormatWriter((".npy",), ".numpy_files._write:npy_parts"),
}
