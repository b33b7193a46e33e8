"""NumPy's .npz and .npy files, read: arrays by name, or one.

An array of Python objects is a pickle, and stays an Opaque value; arrays of text and dates become lists; all others
are leaves. A name's element type and ties, where NumPy has no words for them, are in the archive's directory (`_npz_write`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

from statedict.files import File
from statedict.state import DTYPES, DType, Leaf, Opaque, Spec, contiguous_strides

from ..errors import FormatError, TruncatedError
from ._checkpoint import Checkpoint, Finding
from ._extent import Extent, FileSource
from ._json import read_json
from ._limits import LIMITS, Limits
from ._npy_header import LONGEST, NpyHeader, element_type, npy_descr, read_npy_header
from ._shape import check_addressable
from ._zip import Archive, first_bytes, located, member_bytes, open_zip, read_member, verify_members
from ._zip_entries import DEFLATED, extra_fields
from ._zip_headers import Member

SUFFIX = ".npy"
START = LONGEST + 12
# NumPy's header of an array of numbers has 128 bytes.
USUAL = 512
EXTRA = 0x4453
COMMENT = b"statedict "
UNCHECKED = "it has no checksum: damage to it cannot be detected"


class Said(NamedTuple):
    """What the directory says of an array besides: its element type, and the name that it is tied to."""

    dtype: DType | None = None
    tied: str | None = None


def read_npz(file: File, limits: Limits = LIMITS, archive: Archive | None = None) -> Checkpoint:
    """The Checkpoint in an .npz file; its object is a mapping of names to leaves, in the archive's order."""
    archive = archive or open_zip(file, limits)
    source = FileSource(file)
    state: dict[str, Any] = OrderedDict()
    ties: dict[str, str] = {}
    for name in archive.members:
        if not name.endswith(SUFFIX):
            raise FormatError("it is no .npy array", file=file.name, member=name)
    members = located(archive, archive.members.values())
    for member, start in zip(members, first_bytes(archive, members, USUAL)):
        name = member.name.removesuffix(SUFFIX)
        said = _said(archive, member.name, limits)
        state[name] = _member_value(archive, member, start, source, said, limits)
        if said.tied is not None:
            ties[name] = said.tied
    _tie(state, ties, file.name)
    comment = _comment(archive, limits)
    if "modules" in comment:
        state._metadata = OrderedDict(comment["modules"])  # type: ignore[attr-defined]
    return Checkpoint(
        file.name,
        "npz",
        state,
        size=file.size,
        producer="statedict" if comment else "NumPy",
        notes=archive.notes,
        metadata=comment.get("metadata", {}),
        checks=partial(check_arrays, archive),
        close=file.close,
    )


def read_npy(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """The Checkpoint in an .npy file; its object is the one array."""
    header = read_npy_header(file.read(0, min(file.size, START)), file.name, None, limits)
    raw = partial(file.read, header.size, file.size - header.size)
    extent = Extent(0, file.size, "the array", skip=header.size)
    value = _value(header, extent, file.size, FileSource(file), raw, None)
    return Checkpoint(file.name, "npy", value, size=file.size, producer="NumPy", notes=[UNCHECKED], close=file.close)


def check_arrays(archive: Archive) -> Iterator[Finding]:
    """An error for each member whose bytes are not those that were written."""
    for member, crc in verify_members(archive):
        text = (
            f"its bytes have changed since they were written: their CRC-32 is {crc:08x} and should be {member.crc:08x}"
        )
        yield Finding("error", member.name.removesuffix(SUFFIX), text)


def _member_value(
    archive: Archive, member: Member, start: bytes, source: FileSource, said: Said, limits: Limits
) -> Any:
    try:
        header = read_npy_header(start, archive.file.name, member.name, limits)
    except TruncatedError:
        header = read_npy_header(member_bytes(archive, member, START), archive.file.name, member.name, limits)
    whole = partial(member_bytes, archive, member)
    extent = Extent(
        member.offset,
        member.nbytes,
        member.name,
        member.crc if archive.checked else None,
        inflate=whole if member.method == DEFLATED else None,
        skip=header.size,
    )
    return _value(
        header, extent, member.nbytes, source, lambda: read_member(archive, member.name)[header.size :], said.dtype
    )


def _value(
    header: NpyHeader, extent: Extent, nbytes: int, source: FileSource, raw: Callable[[], bytes], known: DType | None
) -> Any:
    """The leaf of an array of `nbytes` bytes with its header; for other arrays what can be had without unpickling."""
    found = element_type(header.descr)
    if known is not None and header.descr == npy_descr(known):
        found = known, 1
    if found is None:
        return _text(header, raw, extent.member, source.file.name)
    dtype, swap = found
    check_addressable(header.shape, dtype.itemsize, file=source.file.name, member=extent.member)
    expected = prod(header.shape) * dtype.itemsize
    if header.size + expected != nbytes:
        raise FormatError(
            f"a {dtype} array of shape {header.shape} has {expected:,} bytes, but there are {nbytes - header.size:,}",
            file=source.file.name,
            member=extent.member,
        )
    strides = contiguous_strides(header.shape)
    if header.fortran:
        strides = tuple(reversed(contiguous_strides(header.shape[::-1])))
    storage = source.storage(extent.member, expected, extent._replace(itemsize=dtype.itemsize, swap=swap))
    return Leaf(Spec(dtype, header.shape, strides), storage)


def _text(header: NpyHeader, raw: Callable[[], bytes], member: str, file: str) -> Any:
    """An array of text or dates as lists; any other that has no leaf, and a very large one, as an Opaque value. Its
    checksum is looked at."""
    data = raw()
    dtype = _text_type(header.descr)
    if dtype is None or prod(header.shape) > MOST_TEXTS:
        return Opaque("numpy", "ndarray", (str(header.descr)[:1000], header.shape))
    import numpy as np

    if len(data) != prod(header.shape) * dtype.itemsize:
        raise FormatError(f"its {len(data):,} bytes are not those of shape {header.shape}", file=file, member=member)
    check_addressable(header.shape, dtype.itemsize, file=file, member=member)
    try:
        return np.frombuffer(data, dtype).reshape(header.shape, order="F" if header.fortran else "C").tolist()
    except ValueError as error:
        raise FormatError(f"it is no text: {error}", file=file, member=member) from error


def _text_type(descr: Any) -> Any:
    """NumPy's dtype of text or dates that a header names; None for any other."""
    import numpy as np

    if type(descr) is not str or not TEXT.fullmatch(descr):
        return None
    try:
        return np.dtype(descr) if np.dtype(descr).itemsize else None
    except (TypeError, ValueError):
        return None


def _said(archive: Archive, name: str, limits: Limits) -> Said:
    file = archive.file.name
    for kind, content in extra_fields(archive.extras.get(name, b""), name, file):
        if kind == EXTRA:
            fields = read_json(content, file, limits, name)
            if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
                raise FormatError("what the directory says of it is not understood", file=file, member=name)
            return Said(DTYPES.get(fields.get("dtype", "")), fields.get("tied"))
    return Said()


def _comment(archive: Archive, limits: Limits) -> dict[str, dict[str, Any]]:
    """The archive's comment, where it is ours."""
    if not archive.comment.startswith(COMMENT):
        return {}
    found = read_json(archive.comment.removeprefix(COMMENT), archive.file.name, limits, "the comment")
    if not isinstance(found, dict) or not all(isinstance(part, dict) for part in found.values()):
        raise FormatError("the archive's comment is not understood", file=archive.file.name)
    return found


def _tie(state: dict[str, Any], ties: Mapping[str, str], file: str) -> None:
    """Let names that are tied share the storage of the one they are tied to."""
    for name, first in ties.items():
        one, other = state.get(first), state[name]
        if not isinstance(one, Leaf) or not isinstance(other, Leaf) or one.spec != other.spec:
            raise FormatError(f"it is said to be tied to {first!r}, which is another array", file=file, member=name)
        state[name] = one


TEXT = re.compile(r"[<>|=][USMm]\d{1,6}(\[\w{1,10}\])?")
# A letter in a file becomes an object of 50 bytes or more.
MOST_TEXTS = 100_000
