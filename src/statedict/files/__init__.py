"""Files: batched reads, atomic replacement, checksums. This package does not depend on tensors."""

from . import system
from ._attempts import inside
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
from ._open import is_url, local_path, open, redacted
from ._output import Durable
from ._set import FileSet, write_set
from ._shares import Range, Shares, Sum, joined, shares, whole
from ._slice import FileSlice
from ._write import Fill, Frame, Part, Payload, fill, total_of, write, write_summed
from .stores._bucket import ABSENT, Bucket, StoredObject, put_surely
from .stores._open import open_bucket
from .stores._upload import Upload
from .system import System

__all__ = [
    "ABSENT", "CHECKSUMS", "PORTION", "WAITING", "Bucket", "Durable", "File", "FileChain", "FileSet", "FileSlice",
    "Fill", "Folder", "Frame", "JointWriter", "Location", "Order", "Part", "Payload", "Range", "Run", "Shares", "Span",
    "StoredObject", "Sum", "System", "Upload", "Written", "check_inside", "checksums", "checksums_of",
    "checksums_within", "combine", "crc32", "crc32s", "fetch", "fill", "follow", "grouped", "inside", "is_plain_name",
    "is_url", "joined", "local_path", "open", "open_bucket", "open_folder", "put_surely", "read_checked",
    "redacted", "remove_abandoned", "shares", "spread", "system", "total_of", "whole", "write", "write_set", "write_summed",
]  # fmt: skip
