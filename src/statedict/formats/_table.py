"""Open files and folders with the first format that recognises them, by their content and not by their suffix.

To add a format, add a row here (`_folder_table` for folders, `_zip_table` for zip archives, `_write` for its writer) and a
module for it. Readers are imported when they are first needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from statedict import files
from statedict.files import File, Folder
from statedict.state import collector_paused

from ..errors import FormatError, UnknownFormatError
from ._folder_table import FOLDERS
from ._format import Format, close_with, function, head_of
from ._limits import LIMITS, Limits
from ._names import METADATA
from .checkpoint._checkpoint import Checkpoint


def open(source: Any, *, limits: Limits = LIMITS) -> Checkpoint:
    """Open the checkpoint in `source`: a path, a URL, or a seekable binary file object, which is read from its current
    position. The path or URL of a directory, or a Folder, opens the checkpoint that its files form: shards with an index, a
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
    folder = _folder_of(source)
    if folder is not None:
        return _open_folder(folder, limits)
    try:
        file = files.open(source)
    except IsADirectoryError:
        return _open_folder(files.open_folder(source), limits)
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
    if folder.depth > DEEPEST:
        raise FormatError(f"the checkpoint is more than {DEEPEST} folders deep", file=folder.path)
    if (count := folder.count_visits(1)) > limits.folders:
        raise limits.exceeded("folders", f"a checkpoint of at least {count:,} folders").located(file=folder.path)
    return _read_first(FOLDERS, lambda row: row.holds(folder), folder, folder.path, limits)


def read_row(row: Format, source: File | Folder, limits: Limits) -> Checkpoint:
    """Read the checkpoint in a file or folder with the reader of a row."""
    return cast(Checkpoint, function(row.read)(source, limits))


def _read_first(
    rows: Sequence[Format], fits: Callable[[Format], bool], source: File | Folder, name: str, limits: Limits
) -> Checkpoint:
    """Read a source with the first row that fits, or the last one; if it is not of that format, with a plugin."""
    row = next(filter(fits, rows), rows[-1])
    try:
        return read_row(row, source, limits)
    except UnknownFormatError as error:
        if error.file != name:
            raise
        from ._entry_points import read_by_plugin

        return read_by_plugin(source, name, fits, limits, error)


def _folder_of(source: Any) -> Folder | None:
    """Return the folder that `source` is or names, directly or by its metadata file; None for anything else."""
    if not isinstance(source, (str, os.PathLike)):
        return source if isinstance(source, Folder) else None
    path = os.fspath(files.local_path(source) or source)
    if METADATA.fullmatch(os.path.basename(path)):
        path = os.path.dirname(path) or os.curdir
    return files.open_folder(path) if os.path.isdir(path) else None


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


# The layouts of all frameworks have fewer. Deeper folders could exhaust the stack.
DEEPEST = 16
PICKLE_BEGINS = [bytes([code]) for code in b"\x80(}])cIKMJLFGSUVXTN"]
FORMATS = (
    Format("zip", "._zip_table:read_zip", begins=_is_zip),
    Format("safetensors", ".safetensors._read:read_safetensors", begins=_is_safetensors),
    Format("npy", ".numpy_files._read:read_npy", begins=_is_array),
    Format("torch-tar", ".torch_files._tar:read_torch_tar", begins=_is_tar),
    Format("gguf", "statedict.plugins.gguf:read_gguf", begins=lambda head, file: head[:4] == b"GGUF"),
    Format("pickle", ".torch_files._bare_pickle:read_pickles", begins=_may_be_pickle),
    Format("index", ".many_files._shards:read_index", begins=is_index),
    Format("unknown", "._foreign_formats:refuse"),
)
