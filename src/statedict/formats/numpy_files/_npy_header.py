"""The header of an .npy array: element type, order and shape, as a Python dict literal."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from statedict.state import DTYPES, DType

from ...errors import FormatError, TruncatedError
from .._limits import Limits
from ._literal import read_literal

MAGIC = b"\x93NUMPY"
# NumPy writes less than this, and reads at most this much from untrusted files.
LONGEST = 10_000
FIELDS = {"descr", "fortran_order", "shape"}
COMPLEX32 = [("real", "<f2"), ("imag", "<f2")]
ALIGNMENT = 64


class NpyHeader(NamedTuple):
    """The content of the header. `descr`: NumPy's string (or list) for the element type; `size`: bytes before the
    elements.
    """

    descr: Any
    fortran: bool
    shape: tuple[int, ...]
    size: int


def read_npy_header(start: bytes, file: str, member: str | None, limits: Limits) -> NpyHeader:
    """Parse the header in an array's first bytes; `start` should be `LONGEST` + 12 bytes, or the whole array."""
    try:
        header = _read(start)
    except FormatError as error:
        raise error.located(file=file, member=member) from None
    if len(header.shape) > limits.dimensions:
        raise limits.exceeded("dimensions", f"an array of {len(header.shape)} dimensions").located(
            file=file, member=member
        )
    return header


def _read(start: bytes) -> NpyHeader:
    if start[:6] != MAGIC:
        raise FormatError("the file does not start with the .npy signature", offset=0)
    major, minor = start[6:8].ljust(2, b"\xff")
    if (major, minor) not in ((1, 0), (2, 0), (3, 0)):
        raise FormatError(f"unsupported .npy version {major}.{minor}", offset=6)
    width = 2 if major == 1 else 4
    length = int.from_bytes(start[8 : 8 + width], "little")
    size = 8 + width + length
    if length > LONGEST:
        raise FormatError(f"the header has {length:,} bytes; at most {LONGEST:,} are accepted", offset=8)
    if size > len(start):
        raise TruncatedError(f"truncated within the header of {size:,} bytes", offset=len(start))
    try:
        fields = read_literal(start[8 + width : size].decode("utf-8" if major == 3 else "latin-1"))
    except ValueError as error:
        raise FormatError(f"the header is not a valid Python literal: {error}", offset=8 + width) from error
    if type(fields) is not dict or fields.keys() != FIELDS:
        raise FormatError("the header must have exactly the keys descr, fortran_order and shape", offset=8 + width)
    shape, fortran = fields["shape"], fields["fortran_order"]
    if (
        type(shape) is not tuple
        or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape)
        or type(fortran) is not bool
    ):
        raise FormatError("the shape or fortran_order in the header is not valid", offset=8 + width)
    return NpyHeader(fields["descr"], fortran, shape, size)


def npy_header(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """Return the header of a row-major array; its length is a multiple of 64, so that the elements can be aligned."""
    text = f"{{'descr': {npy_descr(dtype)!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(10 + len(text) + 1) % ALIGNMENT) + b"\n"
    return MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text


def npy_descr(dtype: DType) -> Any:
    """Return NumPy's `descr` for an element type."""
    if dtype.carrier == "<f2,<f2":
        return COMPLEX32
    # NumPy has no descr for the types of ml_dtypes, and writes bytes of that size.
    return f"<V{dtype.itemsize}" if dtype.carrier.startswith("ml_dtypes.") else dtype.carrier


def element_type(descr: Any) -> tuple[DType, int] | None:
    """Return the element type of a header, and how many bytes of it are in reverse order; None if a tensor cannot have
    it.
    """
    if descr == COMPLEX32:
        return DTYPES["complex32"], 1
    if type(descr) is not str or len(descr) < 3:
        return None
    dtype = _BY_DESCR.get(descr[1:])
    # "|" and "=" depend on the machine if the element has more than one byte.
    if dtype is None or descr[0] not in ("<>" if dtype.itemsize > 1 else "<>|="):
        return None
    byte_swapped = descr[0] == ">"
    return dtype, (dtype.itemsize // (2 if dtype.is_complex else 1)) if byte_swapped else 1


_KINDS = {"f": "float", "i": "int", "u": "uint", "b": "bool", "c": "complex"}
_BY_DESCR = {
    dtype.carrier[1:]: dtype
    for dtype in DTYPES.values()
    if dtype.carrier[0] in "<|" and "," not in dtype.carrier and dtype.kind == _KINDS.get(dtype.carrier[1:2])
}
