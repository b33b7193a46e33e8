"""The table of formats, recognised by their content and not by their suffix; each has a reader and a writer.

To add a format, add a row here and a module for it. Readers are imported when they are first needed. Formats that are zip
archives have a table of their own: they are recognised by their members.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from statedict import files
from statedict.files import Durable, File, Folder, Frame, JointWriter, Part, Payload
from statedict.state import Leaf, StateDict, collector_paused

from ..errors import FormatError, SaveError, TruncatedError, UnknownFormatError
from ._format import Format, close_with, function, head_of
from ._limits import LIMITS, Limits
from .checkpoint._checkpoint import Checkpoint

if TYPE_CHECKING:
    from .zip._archive import Archive

# The suffixes of weights, in order of preference. A directory often has the same weights in several formats.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".gguf")
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
MARKERS = ("latest", "latest_checkpointed_iteration.txt")
# Files of torch_checkpointing, one for each rank.
OF_A_RANK = re.compile(r"[A-Za-z0-9_-]+_\d{1,7}\.pt")
# torch.distributed.checkpoint writes one metadata file, or one per rank.
METADATA = re.compile(r"(?:__\d{1,9})?\.metadata")


# The members by which packages of torch.export are recognised: of PyTorch 2.8 and later, and of earlier versions.
PACKAGE, FLAT_PROGRAM = "archive_format", "serialized_exported_program.json"


class ZipFormat(NamedTuple):
    """A format that is a zip archive. `read` is `module:function`, which takes a File, Limits and an Archive."""

    name: str
    has: Callable[[Archive], bool]
    read: str


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
        return _open_folder(Folder(directory), limits)
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


def read(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """Read the checkpoint in an open File with the first format of the table, or of a plugin, that matches.

    The File must stay open as long as the Checkpoint, which closes it; if this raises, close it yourself.
    """
    head = head_of(file)
    return _read_first(FORMATS, lambda row: row.begins(head, file), file, file.name, limits)


def _open_folder(folder: Folder, limits: Limits) -> Checkpoint:
    try:
        with collector_paused():
            return close_with(read_folder(folder, limits), folder)
    except BaseException:
        folder.close()
        raise


def read_folder(folder: Folder, limits: Limits = LIMITS) -> Checkpoint:
    """Read the checkpoint in an open folder with the first format of the table, or of a plugin, that matches."""
    return _read_first(FOLDERS, lambda row: row.holds(folder), folder, folder.path, limits)


def _read_first(
    rows: Sequence[Format], fits: Callable[[Format], bool], source: File | Folder, name: str, limits: Limits
) -> Checkpoint:
    """Read a source with the first row that fits, or the last one; if it is not of that format, with a plugin."""
    row = next(filter(fits, rows), rows[-1])
    try:
        return cast(Checkpoint, function(row.read)(source, limits))
    except UnknownFormatError as error:
        if error.file != name:
            raise
        from ._entry_points import read_by_plugin

        return read_by_plugin(source, name, fits, limits, error)


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
    tied. `format` is a name from the table (`"torch"`, `"safetensors"`, `"npz"`) or of a plugin's format; None
    chooses by the suffix of the path, `"torch"` for a path without one. `metadata` is stored in the file and maps strings to strings.
    `max_shard_size` is in bytes, or text such as `"5GB"`: a larger state dict is split into several files, with an
    index at `path` plus `.index.json`. `durable`: see `statedict.files.write`.

    `substitute` returns what to write instead of an object that is not plain data (or the object itself). `together`: write
    together with other processes, which have parts of the tensors.

    Raises SaveError if a value cannot be written in that format or could not be loaded again (nothing is changed then),
    DiskFullError, OSError.
    """
    if isinstance(target, (str, os.PathLike)) and not os.path.basename(os.fspath(target)):
        raise SaveError(f"{os.fspath(target)!r} is a directory: pass the path of a file in it")
    row = _writer(format, target)
    if together is not None:
        _require_joint(target, row)
    fill = files.fill if together is None else together.fill
    parts: Callable[..., list[Part]] = partial(_with_texts, row)
    if row.name == "torch":
        parts = partial(parts, substitute=substitute)
    if max_shard_size is None:
        with collector_paused():
            files.write(target, parts(obj, metadata), durable=durable, fill=fill)
    elif not isinstance(target, (str, os.PathLike)):
        raise SaveError("shards are several files: pass a path, not a file object")
    else:
        names = {"names": function(row.names)} if row.names else {}
        function(SHARDED)(obj, os.fspath(target), parts, max_shard_size, metadata, durable, fill=fill, **names)


def _require_joint(target: Any, row: Format) -> None:
    """Raise SaveError if several processes cannot write this format to this target together."""
    sharded = "the processes that have its parts write the file together"
    if not isinstance(target, (str, os.PathLike)):
        raise SaveError(f"a file object cannot receive a tensor that is sharded: {sharded}, which needs a path")
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


def _writer(format: str | None, target: Any) -> Format:
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
    return _read_members(archive, limits)


def _read_members(archive: Archive, limits: Limits) -> Checkpoint:
    for row in ZIP_FORMATS:
        if row.has(archive):
            return cast(Checkpoint, function(row.read)(archive.file, limits, archive))
    named = ", ".join(list(archive.members)[:5]) or "none"
    raise UnknownFormatError(
        f"this is a zip archive, but not a checkpoint; its members: {named}",
        file=archive.file.name,
        hint="if one of them is a checkpoint, unpack the archive and open that file",
    )


def read_unpacked(folder: Folder, limits: Limits) -> Checkpoint:
    """Read the checkpoint in a zip archive that was unpacked: its folder, or the one that contains that."""
    from .zip._unpacked import unpacked

    inside = folder if _is_unpacked(folder) else folder.folder(_only_folder(folder))
    top = "" if FLAT_PROGRAM in inside.files else "archive/"
    return _read_members(unpacked(inside, limits, top), limits)


def _is_unpacked(folder: Folder) -> bool:
    files = {*folder.files}
    if "data.pkl" not in files:
        return not files.isdisjoint((PACKAGE, FLAT_PROGRAM))
    # Data sets have files of this name, too.
    return not files.isdisjoint(("version", "byteorder")) or ("data" in folder.folders and not is_weights(folder))


def _only_folder(folder: Folder) -> str:
    """Return the name of the folder in a folder if there is only one, without hidden ones; else an empty text."""
    shown = [name for name in folder.folders if not name.startswith((".", "__"))]
    return shown[0] if len(shown) == 1 else ""


def _holds_unpacked(folder: Folder) -> bool:
    """Return whether a folder is an unpacked archive, or contains one and no other weights."""
    if _is_unpacked(folder):
        return True
    inside = _only_folder(folder)
    return bool(inside) and not is_weights(folder) and _is_unpacked(folder.folder(inside))


def _is_torch_checkpointing(folder: Folder) -> bool:
    # The module is imported only for folders that have such files.
    names = [name for name in folder.files if name == "metadata.pkl" or OF_A_RANK.fullmatch(name)]
    return bool(names) and bool(function("statedict.plugins.torch_checkpointing:holds")(folder))


def _has_arrays(archive: Archive) -> bool:
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def _has_constants(archive: Archive) -> bool:
    return _has(archive, "data.pkl") and _has(archive, "constants.pkl")


def _has_pickle(archive: Archive) -> bool:
    return _has(archive, "data.pkl")


def _has_program(archive: Archive) -> bool:
    """Return whether an archive is a package of torch.export and torch.load does not take it for a file of torch.save."""
    if FLAT_PROGRAM in archive.members or PACKAGE in archive.members:
        return True
    folder = next(iter(archive.members), "").partition("/")[0]
    return f"{folder}/{PACKAGE}" in archive.members and f"{folder}/data.pkl" not in archive.members


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
    Format("gguf", "statedict.plugins.gguf:read_gguf", begins=lambda head, file: head[:4] == b"GGUF"),
    Format("pickle", ".torch_files._bare_pickle:read_pickles", begins=_may_be_pickle),
    Format("index", ".many_files._shards:read_index", begins=is_index),
    Format("unknown", "._foreign_formats:refuse"),
)
ZIP_FORMATS = (
    ZipFormat("pt2", _has_program, ".torch_files._exported:read_exported"),
    ZipFormat("torchscript", _has_constants, ".torch_files._torchscript:read_torchscript"),
    ZipFormat("torch", _has_pickle, ".torch_files._read:read_torch_zip"),
    ZipFormat("npz", _has_arrays, ".numpy_files._read:read_npz"),
)
FOLDERS = (
    Format("distributed", ".many_files._distributed:read_distributed", holds=_has_file(METADATA)),
    Format(
        "rank-files", ".many_files._parts:read_parts", holds=_has_file(re.compile(r"shard-\d{5,9}-.+\.safetensors"))
    ),
    Format(
        "torch-checkpointing",
        "statedict.plugins.torch_checkpointing:read_checkpoint",
        holds=_is_torch_checkpointing,
    ),
    Format("unpacked", "._table:read_unpacked", holds=_holds_unpacked),
    Format("directory", ".folders._roles:read_roles", holds=_has_file(ROLE)),
    Format("run", ".folders._steps:read_newest", holds=_is_run),
    Format("weights", ".many_files._weights:read_weights", holds=is_weights),
)
SHARDED = ".many_files._shards_write:write_sharded"
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
            names=".safetensors._wrappers:stored_names",
            jointly=True,
        ),
        Format("npz", suffixes=(".npz",), write=".numpy_files._write:npz_parts"),
        Format("npy", suffixes=(".npy",), write=".numpy_files._write:npy_parts"),
    )
}
