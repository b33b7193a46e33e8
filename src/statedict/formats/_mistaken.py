"""Files that are no checkpoint but often lie where one should: each named as what it is, with what to do."""

from __future__ import annotations

import re
from typing import NamedTuple

from statedict.files import File

from ..errors import FormatError, TruncatedError, UnknownFormatError


class Mistaken(NamedTuple):
    """What a file is, by how it begins, and what to do about it."""

    begins: re.Pattern[bytes]
    what: str
    hint: str


def unknown(file: File, head: bytes) -> FormatError:
    """The error for a file that is no format that is read here, by its first bytes."""
    if not file.size:
        return TruncatedError("the file is empty (0 bytes)", file=file.name, hint="its save or download did not finish")
    for mistaken in MISTAKEN:
        if mistaken.begins.match(head):
            return UnknownFormatError(f"this is {mistaken.what}, not a checkpoint", file=file.name, hint=mistaken.hint)
    if not head.strip(b"\0"):
        return UnknownFormatError(
            f"its first {len(head)} bytes are zero",
            file=file.name,
            hint="they were never written: save or fetch it again",
        )
    return UnknownFormatError(
        f"its first bytes, {head[:12].hex(' ')}, begin no format that is read here ({file.size:,} bytes)",
        file=file.name,
    )


def _row(pattern: bytes, what: str, hint: str) -> Mistaken:
    return Mistaken(re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:" + pattern + rb")", re.IGNORECASE), what, hint)


def _magic(pattern: bytes, what: str, hint: str) -> Mistaken:
    return Mistaken(re.compile(pattern, re.DOTALL), what, hint)


FETCH = "its download gave an error page: look at it as text, and fetch the file again"
UNPACK = "unpack it first"
MISTAKEN = (
    _row(
        rb"version https://git-lfs", "a git-lfs pointer, the stand-in for a file that was not fetched", "git lfs pull"
    ),
    _row(rb"<!doctype html|<html|<head|<body", "an HTML page", FETCH),
    _row(rb"<\?xml|<error", "an XML document", FETCH),
    _row(rb'\{\s*"error|\{\s*"message', "an error message in JSON", FETCH),
    _magic(rb"\x1f\x8b", "a gzip-compressed file", "gunzip it first"),
    _magic(rb"BZh[1-9]", "a bzip2-compressed file", "bunzip2 it first"),
    _magic(rb"\xfd7zXZ\0", "an xz-compressed file", "unxz it first"),
    _magic(rb"\x28\xb5\x2f\xfd", "a zstd-compressed file", "unzstd it first"),
    _magic(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    _magic(rb"Rar!", "a RAR archive", UNPACK),
    _magic(rb"\x89HDF", "an HDF5 file (Keras, older TensorFlow)", "h5py reads it"),
    _magic(rb"\x08[\x01-\x40](?:\x12[\x01-\x7f][ -~]|[\x3a\x42])", "an ONNX model", "onnx.load reads it"),
    _magic(
        rb"(?:[\x81-\x8f]|\xde..|\xdf....)[\xa1-\xbf\xd9][ -~\x80-\xff]",
        "a msgpack file (Flax)",
        "flax.serialization.msgpack_restore reads it",
    ),
    _magic(rb"GGUF", "a GGUF model", "llama.cpp's tools read it"),
    _magic(rb"\x89PNG|\xff\xd8\xff|%PDF", "an image or a document", "look for the weights beside it"),
)
