"""NumPy's .npz and .npy files, read: arrays by name, or one.

An array of Python objects is a pickle, of which the imports are looked at; it stays an Opaque value. Arrays of text and
dates become lists; all others are leaves. A name's element type and ties, where NumPy has no words for them, are in the
archive's directory (`_npz_write`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.files import File
from statedict.state import DTYPES, DType, Leaf, Opaque, Spec, contiguous_strides

from ...errors import FormatError, TruncatedError
from .._json import read_json
from .._limits import LIMITS, Limits
from .._pickle import Import, Parsed
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..storages._extent import FALSE_TIE, Extent, FileSource
from ..storages._shape import check_addressable
from ..storages._text import check_text
from ..zip._archive import (
    Archive,
    first_bytes,
    is_affordable,
    located,
    member_bytes,
    open_zip,
    read_member,
    verify_members,
)
from ..zip._directory import DEFLATED, extra_fields
from ..zip._headers import Member
from ._npy_header import LONGEST, NpyHeader, element_type, npy_descr, read_npy_header

if TYPE_CHECKING:
    import numpy as np

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
    reader = _Reader(file, limits)
    state: dict[str, Any] = OrderedDict()
    ties: dict[str, str] = {}
    for name in archive.members:
        if not name.endswith(SUFFIX):
            raise FormatError("it is no .npy array", file=file.name, member=name)
    members = located(archive, archive.members.values())
    for member, start in zip(members, first_bytes(archive, members, USUAL)):
        name = member.name.removesuffix(SUFFIX)
        said = _said(archive, member.name, limits)
        state[name] = _member_value(archive, member, start, reader, said)
        if said.tied is not None:
            ties[name] = said.tied
    _tie(state, ties, {member.name: member.crc for member in members}, file.name)
    comment = _comment(archive, limits)
    if "modules" in comment:
        state._metadata = OrderedDict(comment["modules"])  # type: ignore[attr-defined]
    return Checkpoint(
        file.name,
        "npz",
        state,
        size=file.size,
        producer="statedict" if comment else "NumPy",
        globals=reader.imports,
        notes=archive.notes,
        metadata=comment.get("metadata", {}),
        checks=partial(check_arrays, archive, reader.source, state),
        close=file.close,
    )


def read_npy(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """The Checkpoint in an .npy file; its object is the one array."""
    header = read_npy_header(file.read(0, min(file.size, START)), file.name, None, limits)
    raw = partial(file.read, header.size, file.size - header.size)
    extent = Extent(0, file.size, "the array", skip=header.size)
    reader = _Reader(file, limits)
    value = reader.value(header, extent, file.size, raw)
    return Checkpoint(
        file.name,
        "npy",
        value,
        size=file.size,
        producer="NumPy",
        globals=reader.imports,
        notes=[UNCHECKED],
        close=file.close,
    )


def check_arrays(archive: Archive, source: FileSource, state: Mapping[str, Any]) -> Iterator[Finding]:
    """An error for each member whose bytes are not those that were written, or of the array that it is tied to."""
    for member, crc in verify_members(archive):
        text = (
            f"its bytes have changed since they were written: their CRC-32 is {crc:08x} and should be {member.crc:08x}"
        )
        yield Finding("error", member.name.removesuffix(SUFFIX), text)
    storages = {id(leaf.storage): leaf.storage for leaf in state.values() if isinstance(leaf, Leaf)}
    for twin in source.false_twins(storages.values()):
        yield Finding("error", twin.member.removesuffix(SUFFIX), FALSE_TIE)


def _member_value(archive: Archive, member: Member, start: bytes, reader: _Reader, said: Said) -> Any:
    limits = reader.limits
    try:
        header = read_npy_header(start, archive.file.name, member.name, limits)
    except TruncatedError:
        header = read_npy_header(member_bytes(archive, member, START), archive.file.name, member.name, limits)
    extent = Extent(
        member.offset,
        member.nbytes,
        member.name,
        member.crc if archive.checked else None,
        inflate=partial(member_bytes, archive, member) if member.method == DEFLATED else None,
        skip=header.size,
    )
    affordable = is_affordable(archive, member, limits)
    raw = (lambda: read_member(archive, member.name)[header.size :]) if affordable else None
    return reader.value(header, extent, member.nbytes, raw, said.dtype)


class _Reader:
    """What the arrays of one file are; `imports` are those of its pickles so far."""

    def __init__(self, file: File, limits: Limits) -> None:
        self.limits = limits
        self.imports: list[Import] = []
        self._file = file
        self.source = FileSource(file)
        self._texts = MOST_TEXTS + file.size // LETTER

    def value(
        self,
        header: NpyHeader,
        extent: Extent,
        nbytes: int,
        raw: Callable[[], bytes] | None,
        known: DType | None = None,
    ) -> Any:
        """The leaf of an array of `nbytes` bytes with its header; for other arrays what can be had without unpickling.

        `raw` gives the elements' bytes; None where they are too many to be looked at.
        """
        found = element_type(header.descr)
        if known is not None and header.descr == npy_descr(known):
            found = known, 1
        if found is None:
            return self._other(header, raw, extent.member)
        dtype, swap = found
        check_addressable(header.shape, dtype.itemsize, file=self._file.name, member=extent.member)
        expected = prod(header.shape) * dtype.itemsize
        if header.size + expected != nbytes:
            raise FormatError(
                f"a {dtype} array of shape {header.shape} has {expected:,} bytes, but there are {nbytes - header.size:,}",
                file=self._file.name,
                member=extent.member,
            )
        strides = contiguous_strides(header.shape)
        if header.fortran:
            strides = tuple(reversed(contiguous_strides(header.shape[::-1])))
        storage = self.source.storage(extent.member, expected, extent._replace(itemsize=dtype.itemsize, swap=swap))
        return Leaf(Spec(dtype, header.shape, strides), storage)

    def _other(self, header: NpyHeader, raw: Callable[[], bytes] | None, member: str) -> Any:
        """An array of text or dates as lists; any other that has no leaf, and a very large one, as an Opaque value. Its
        checksum is looked at."""
        dtype = _numpy_type(header.descr)
        opaque = Opaque("numpy", "ndarray", (str(header.descr)[:1000], header.shape))
        if dtype is not None and dtype.hasobject:
            self._look_into(raw, member)
        # An array without elements can be a list of any number of empty ones.
        count = prod(size or 1 for size in header.shape)
        data = b"" if raw is None else raw()
        if raw is None or dtype is None or dtype.kind not in "USMm" or not dtype.itemsize or count > self._texts:
            return opaque
        self._texts -= count
        return self._listed(header, dtype, data, member)

    def _listed(self, header: NpyHeader, dtype: np.dtype[Any], data: bytes, member: str) -> Any:
        import numpy as np

        where: dict[str, Any] = {"file": self._file.name, "member": member}
        if len(data) != prod(header.shape) * dtype.itemsize:
            raise FormatError(f"its {len(data):,} bytes are not those of shape {header.shape}", **where)
        check_addressable(header.shape, dtype.itemsize, **where)
        array = np.frombuffer(data, dtype).reshape(header.shape, order="F" if header.fortran else "C")
        check_text(array, **where)
        try:
            return array.tolist()
        except ValueError as error:
            raise FormatError(f"it is no text: {error}", **where) from error

    def _look_into(self, raw: Callable[[], bytes] | None, member: str) -> None:
        """Note what the pickle imports that an array of objects is. One that cannot be read may import anything."""
        found = [Import("numpy", f"ndarray ({member}: a pickle that was not looked into)", "dangerous")]
        if raw is not None:
            with suppress(FormatError):
                found = self._parsed(raw(), member).globals
        self.imports += (named for named in found if named not in self.imports)

    def _parsed(self, data: bytes, member: str) -> Parsed:
        from .._pickle import parse
        from ..torch_files._legacy import nested_reader
        from ..torch_files._stacked_pickles import no_storage

        return parse(
            data,
            storage=no_storage,
            nested=nested_reader(self.limits),
            file=self._file.name,
            member=member,
            limits=self.limits,
            paid=self._file.size,
        )


def _numpy_type(descr: Any) -> np.dtype[Any] | None:
    """NumPy's dtype that a header names, as NumPy reads it; None where it names none."""
    import numpy as np

    if not _is_plain(descr):
        return None
    try:
        return np.lib.format.descr_to_dtype(descr)
    except (TypeError, ValueError, LookupError, RecursionError, DeprecationWarning):
        return None


def _is_plain(descr: Any) -> bool:
    """Whether it is one type, or fields of such: NumPy compiles parts of a list of types with commas."""
    if type(descr) is list:
        return all(type(field) is tuple and len(field) in (2, 3) and _is_plain(field[1]) for field in descr)
    return type(descr) is str and TYPE.fullmatch(descr) is not None


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


def _tie(state: dict[str, Any], ties: Mapping[str, str], crcs: Mapping[str, int], file: str) -> None:
    """Let names that are tied share the storage of the one they are tied to."""
    for name, first in ties.items():
        one, other = state.get(first), state[name]
        if (
            not isinstance(one, Leaf)
            or not isinstance(other, Leaf)
            or one.spec != other.spec
            or first in ties
            or crcs[name + SUFFIX] != crcs[first + SUFFIX]
        ):
            raise FormatError(f"it is said to be tied to {first!r}, which is another array", file=file, member=name)
        state[name] = one
        extent: Extent = one.storage.where
        one.storage.where = extent._replace(twins=(*extent.twins, other.storage.where))


TYPE = re.compile(r"[<>|=]?[A-Za-z?]\d{0,9}(\[\w{1,10}\])?", re.ASCII)
# A text of one letter, 4 bytes in the file, becomes an object of 60 bytes, and larger files pay for more of them.
MOST_TEXTS = 100_000
LETTER = 32
