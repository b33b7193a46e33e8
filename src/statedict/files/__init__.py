"""Files: batched reads, atomic replacement, checksums. This package knows nothing about tensors."""

from ._checksum import checksums as checksums
from ._checksum import checksums_of as checksums_of
from ._checksum import checksums_within as checksums_within
from ._checksum import combine as combine
from ._checksum import crc32 as crc32
from ._checksum import read_checked as read_checked
from ._file import File as File
from ._file import Span as Span
from ._file import check_inside as check_inside
from ._file import fetch as fetch
from ._grouped import grouped as grouped
from ._joint import Contents as Contents
from ._joint import JointWriter as JointWriter
from ._joint import Meeting as Meeting
from ._joint import Order as Order
from ._joint import Run as Run
from ._joint import Written as Written
from ._joint import follow as follow
from ._joint import remove_abandoned as remove_abandoned
from ._open import open as open
from ._output import Durable as Durable
from ._parallel import PORTION as PORTION
from ._parallel import WAITING as WAITING
from ._parallel import spread as spread
from ._part import Frame as Frame
from ._part import Part as Part
from ._part import Payload as Payload
from ._set import FileSet as FileSet
from ._set import write_set as write_set
from ._shares import Range as Range
from ._shares import Shares as Shares
from ._shares import Sum as Sum
from ._shares import joined as joined
from ._shares import shares as shares
from ._shares import whole as whole
from ._system import System as System
from ._url import is_url as is_url
from ._url import redacted as redacted
from ._write import Fill as Fill
from ._write import fill as fill
from ._write import write as write

__all__ = [
    "Contents",
    "Durable",
    "File",
    "FileSet",
    "Fill",
    "Frame",
    "JointWriter",
    "Meeting",
    "Order",
    "Run",
    "Written",
    "fill",
    "follow",
    "Part",
    "Payload",
    "Range",
    "Shares",
    "Span",
    "Sum",
    "System",
    "PORTION",
    "WAITING",
    "check_inside",
    "checksums",
    "checksums_of",
    "checksums_within",
    "combine",
    "crc32",
    "fetch",
    "grouped",
    "is_url",
    "joined",
    "open",
    "read_checked",
    "redacted",
    "remove_abandoned",
    "shares",
    "spread",
    "whole",
    "write",
    "write_set",
]
