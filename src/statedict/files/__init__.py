"""Files: batched reads, atomic replacement, checksums. This package knows nothing about tensors."""

from ._atomic import Durable
from ._checksum import checksums, checksums_of, checksums_within, combine, crc32, crc32s, grouped, read_checked
from ._file import PORTION, WAITING, File, Span, check_inside, fetch, spread
from ._open import is_url, open, redacted
from ._set import FileSet, write_set
from ._shares import Range, Shares, Sum, joined, shares, whole
from ._system import System
from ._write import Frame, Part, Payload, write

__all__ = [
    "PORTION", "WAITING", "Durable", "File", "FileSet", "Frame", "Part", "Payload", "Range", "Shares", "Span", "Sum",
    "System", "check_inside", "checksums", "checksums_of", "checksums_within", "combine", "crc32", "crc32s", "fetch",
    "grouped", "is_url", "joined", "open", "read_checked", "redacted", "shares", "spread", "whole", "write", "write_set",
]  # fmt: skip
