"""Files: batched reads, atomic replacement, checksums. This package knows nothing about tensors."""

from ._chain import FileChain
from ._checksum import (
    CHECKSUMS,
    checksums,
    checksums_of,
    checksums_within,
    combine,
    crc32,
    crc32s,
    grouped,
    read_checked,
)
from ._file import PORTION, WAITING, File, Span, check_inside, fetch, spread
from ._folder import Folder, Location, is_plain_name, open_folder
from ._joint import JointWriter, Order, Run, Written, follow, remove_abandoned
from ._open import is_url, open, redacted
from ._output import Durable
from ._set import FileSet, write_set
from ._shares import Range, Shares, Sum, joined, shares, whole
from ._slice import FileSlice
from ._system import System
from ._write import Fill, Frame, Part, Payload, fill, write

__all__ = [
    "CHECKSUMS", "PORTION", "WAITING", "Durable", "File", "FileChain", "FileSet", "FileSlice", "Fill", "Folder",
    "Frame", "JointWriter", "Location", "Order", "Part", "Payload", "Range", "Run", "Shares", "Span", "Sum", "System",
    "Written", "check_inside", "checksums", "checksums_of", "checksums_within", "combine", "crc32", "crc32s", "fetch",
    "fill", "follow", "grouped", "is_plain_name", "is_url", "joined", "open", "open_folder", "read_checked",
    "redacted", "remove_abandoned", "shares", "spread", "whole", "write", "write_set",
]  # fmt: skip
