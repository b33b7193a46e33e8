"""Files: batched reads, atomic replacement, checksums. This package knows nothing about tensors."""

from ._atomic import Durable as Durable
from ._checksum import checksums as checksums
from ._checksum import checksums_of as checksums_of
from ._checksum import checksums_within as checksums_within
from ._checksum import combine as combine
from ._checksum import crc32 as crc32
from ._checksum import crc32s as crc32s
from ._checksum import read_checked as read_checked
from ._file import File as File
from ._file import Span as Span
from ._file import check_inside as check_inside
from ._file import fetch as fetch
from ._grouped import grouped as grouped
from ._open import open as open
from ._parallel import PORTION as PORTION
from ._parallel import WAITING as WAITING
from ._parallel import spread as spread
from ._part import Frame as Frame
from ._part import Part as Part
from ._part import Payload as Payload
from ._set import FileSet as FileSet
from ._set import write_set as write_set
from ._system import System as System
from ._url import is_url as is_url
from ._url import redacted as redacted
from ._write import write as write

__all__ = [
    "Durable",
    "File",
    "FileSet",
    "Frame",
    "Part",
    "Payload",
    "Span",
    "System",
    "PORTION",
    "WAITING",
    "check_inside",
    "checksums",
    "checksums_of",
    "checksums_within",
    "combine",
    "crc32",
    "crc32s",
    "fetch",
    "grouped",
    "is_url",
    "open",
    "read_checked",
    "redacted",
    "spread",
    "write",
    "write_set",
]
