"""Parse the header of a safetensors file strictly: one JSON object, whose tensors tile the rest of the file exactly.

Theory of operation. The first eight bytes are the length of the header. It maps names to dtype, shape and a range of
bytes after the header; `__metadata__` maps strings to strings. Every byte after the header belongs to exactly one
tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from operator import itemgetter
from typing import Any, NamedTuple

from statedict.files import File
from statedict.state import DTYPES, DType

from ...errors import FormatError, TruncatedError
from .._json import read_json
from .._limits import Limits
from ..storages._shape import check_addressable

LENGTH = 8
# The dtypes of the reference implementation; of its sub-byte types, F6 has no counterpart in DTYPES.
DTYPE_OF = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
    "C64": "complex64",
    "BOOL": "bool",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
}
PAIRED = "F4"
KEYS = {"dtype", "shape", "data_offsets"}
FACTS = itemgetter("dtype", "shape", "data_offsets")
_INTEGERS = frozenset({int})
# Sizes are 64-bit numbers for every other reader.
LARGEST = 2**63 - 1


class HeaderEntry(NamedTuple):
    """One tensor of the header; `start` and `stop` count bytes from the end of the header."""

    dtype: DType
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """A parsed header: its text, its tensors in order, its metadata, and the offset at which their bytes begin."""

    text: bytes
    entries: dict[str, HeaderEntry]
    metadata: dict[str, str]
    end: int


def read_header(file: File, limits: Limits) -> Header:
    """Read the header of a safetensors file; raise TruncatedError if the file ends too early, FormatError if anything
    in the header deviates from the format.
    """
    length = int.from_bytes(file.read(0, LENGTH), "little")
    if length > limits.json_bytes:
        raise limits.exceeded("json_bytes", f"a header of {length:,} bytes").located(file=file.name)
    if LENGTH + length > file.size:
        raise TruncatedError(
            f"the header is {length:,} bytes long, but the file has only {file.size:,}", file=file.name, offset=0
        )
    text = file.read(LENGTH, length)
    fields = _object(text, file.name, limits)
    metadata = _metadata(fields.pop("__metadata__", {}), file.name)
    entries = _entries(fields, file.name, limits)
    _check_tiling(file, entries, LENGTH + length)
    return Header(text, entries, metadata, LENGTH + length)


def _object(text: bytes, file: str, limits: Limits) -> dict[str, Any]:
    if text[:1] != b"{":
        raise FormatError("the header does not begin with '{'", file=file, offset=LENGTH)
    fields: dict[str, Any] = read_json(text, file, limits, "the header")
    return fields


def _metadata(found: Any, file: str) -> dict[str, str]:
    if not isinstance(found, Mapping) or not all(isinstance(text, str) for text in found.values()):
        raise FormatError("__metadata__ does not map strings to strings", file=file, offset=LENGTH)
    return dict(found)


def _entries(fields: Mapping[str, Any], file: str, limits: Limits) -> dict[str, HeaderEntry]:
    entries = {}
    # Many tensors have one dtype and shape, which are checked once.
    kinds: dict[tuple[Any, ...], tuple[DType, tuple[int, ...], int]] = {}
    for name, value in fields.items():
        if type(value) is not dict or value.keys() != KEYS:
            raise FormatError(
                "its entry must have exactly the keys dtype, shape and data_offsets", file=file, member=name
            )
        code, given, offsets = FACTS(value)
        if type(code) is not str or code not in DTYPE_OF:
            raise FormatError(f"its dtype {code!r} is not supported", file=file, member=name)
        if not _are_integers(given) or not _are_integers(offsets) or len(offsets) != 2:
            raise _wrong_sizes(name, file)
        key = (code, *given)
        if key not in kinds:
            kinds[key] = _kind(name, code, given, file, limits)
        dtype, shape, nbytes = kinds[key]
        start, stop = offsets
        if not (0 <= start <= LARGEST and 0 <= stop <= LARGEST):
            raise _wrong_sizes(name, file)
        if stop - start != nbytes:
            raise FormatError(
                f"a {dtype} tensor of shape {list(shape)} has {nbytes:,} bytes, but its data_offsets span {stop - start:,}",
                file=file,
                member=name,
            )
        entries[name] = HeaderEntry(dtype, shape, start, stop)
    return entries


def _kind(name: str, code: str, shape: list[int], file: str, limits: Limits) -> tuple[DType, tuple[int, ...], int]:
    """Return the dtype and shape of a tensor, and its size in bytes."""
    if not all(0 <= size <= LARGEST for size in shape):
        raise _wrong_sizes(name, file)
    if len(shape) > limits.dimensions:
        raise limits.exceeded("dimensions", f"a tensor of {len(shape)} dimensions").located(file=file, member=name)
    dtype = DTYPES[DTYPE_OF[code]]
    if code == PAIRED:
        # One byte contains two elements: PyTorch's dtype is the pair.
        if not shape or shape[-1] % 2:
            raise FormatError("its 4-bit elements need an even last dimension", file=file, member=name)
        shape = [*shape[:-1], shape[-1] // 2]
    check_addressable(shape, dtype.itemsize, file=file, member=name)
    return dtype, tuple(shape), prod(shape) * dtype.itemsize


def _are_integers(values: Any) -> bool:
    return type(values) is list and _INTEGERS.issuperset(map(type, values))


def _wrong_sizes(name: str, file: str) -> FormatError:
    return FormatError("its shape or data_offsets is not a list of non-negative integers", file=file, member=name)


def _check_tiling(file: File, entries: Mapping[str, HeaderEntry], end: int) -> None:
    """Raise FormatError unless every byte after the header belongs to exactly one tensor."""
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != at:
            problem = (
                "its bytes overlap those of another tensor" if entry.start < at else "unused bytes precede its data"
            )
            raise FormatError(problem, file=file.name, member=name, offset=end + entry.start)
        at = entry.stop
    if end + at > file.size:
        raise TruncatedError(
            f"the file is truncated: it has {file.size:,} of {end + at:,} bytes",
            file=file.name,
            hint="download or save it again",
        )
    if end + at < file.size:
        raise FormatError(f"{file.size - end - at:,} bytes follow the last tensor", file=file.name, offset=end + at)
