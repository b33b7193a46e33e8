"""Files that are often opened by mistake but are not checkpoints: how to recognise each, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, Never

from statedict.files import File
from statedict.state import few

from ..errors import FormatError, TruncatedError, UnknownFormatError
from ._format import head_of
from ._limits import Limits


class ForeignFormat(NamedTuple):
    """A kind of foreign file: the pattern of its first bytes, its description, and what to do with it."""

    begins: re.Pattern[bytes]
    what: str
    hint: str


def refuse(file: File, limits: Limits) -> Never:
    """Raise the error for a file of no supported format: the reader of such files."""
    raise unknown(file, head_of(file))


def other_archive(kind: str, file: str, members: Iterable[str]) -> UnknownFormatError:
    """Return the error for an archive, a `"zip"` or `"tar"`, whose members are not those of a checkpoint."""
    return UnknownFormatError(
        f"this is a {kind} archive, but not a checkpoint; its members: {few(list(members)) or 'none'}",
        file=file,
        hint="if one of them is a checkpoint, unpack the archive and open that file",
    )


def unknown(file: File, head: bytes) -> FormatError:
    """Return the error for a file of no supported format, judged by its first bytes."""
    if not file.size:
        return TruncatedError("the file is empty (0 bytes)", file=file.name, hint="the save or download did not finish")
    for foreign in FOREIGN:
        if foreign.begins.match(head):
            return UnknownFormatError(f"this is {foreign.what}, not a checkpoint", file=file.name, hint=foreign.hint)
    if not head.strip(b"\0"):
        return UnknownFormatError(
            f"its first {len(head)} bytes are all zero",
            file=file.name,
            hint="they were never written: save or download the file again",
        )
    return UnknownFormatError(
        f"unrecognised file format (starts with {head[:12].hex(' ')}; {file.size:,} bytes)",
        file=file.name,
    )


def _row(pattern: bytes, what: str, hint: str) -> ForeignFormat:
    return ForeignFormat(re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:" + pattern + rb")", re.IGNORECASE), what, hint)


def _magic(pattern: bytes, what: str, hint: str) -> ForeignFormat:
    return ForeignFormat(re.compile(pattern, re.DOTALL), what, hint)


FETCH = "the download returned an error page: open it as text to read it, then download the file again"
UNPACK = "unpack it first"
PLUGIN = "install or write a plugin for it: an entry point in the group 'statedict.formats' (docs/how-to/plugin.md)"
FOREIGN = (
    _row(rb"version https://git-lfs", "a Git LFS pointer to a file that was not downloaded", "run: git lfs pull"),
    _row(rb"<!doctype html|<html|<head|<body", "an HTML page", FETCH),
    _row(rb"<\?xml|<error", "an XML document", FETCH),
    _row(rb'\{\s*"error|\{\s*"message', "an error message in JSON", FETCH),
    _magic(rb"\x1f\x8b", "a gzip-compressed file", "decompress it first with gunzip"),
    _magic(rb"BZh[1-9]", "a bzip2-compressed file", "decompress it first with bunzip2"),
    _magic(rb"\xfd7zXZ\0", "an xz-compressed file", "decompress it first with unxz"),
    _magic(rb"\x28\xb5\x2f\xfd", "a zstd-compressed file", "decompress it first with unzstd"),
    _magic(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    _magic(rb"Rar!", "a RAR archive", UNPACK),
    _magic(rb"\x89HDF", "an HDF5 file (Keras, older TensorFlow)", f"read it with h5py, or {PLUGIN}"),
    _magic(
        rb"\x08[\x01-\x40](?:\x12[\x01-\x7f][ -~]|[\x3a\x42])", "an ONNX model", f"read it with onnx.load, or {PLUGIN}"
    ),
    _magic(
        rb"(?:[\x81-\x8f]|\xde..|\xdf....)[\xa1-\xbf\xd9][ -~\x80-\xff]",
        "a msgpack file (Flax)",
        "install the plugin statedict-flax (examples/plugins in the sources of statedict), or read it with "
        "flax.serialization.msgpack_restore",
    ),
    _magic(
        rb"\x89PNG|\xff\xd8\xff|%PDF",
        "an image or a document",
        "check whether the weights are in another file of the same directory",
    ),
)
