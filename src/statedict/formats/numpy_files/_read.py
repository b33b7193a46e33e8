"""Read NumPy's .npz and .npy files: arrays by name, or one.

An array of Python objects is a pickle: its imports are listed, and it stays an Opaque value. Arrays of text and dates
become lists; all others are leaves. Element types that NumPy does not have, and ties, are recorded in the archive's
directory (see `_write`).
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
from ..storages._extent import Extent
from ..storages._file_source import FALSE_TIE, FileSource
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
from ..zip._members import Member
from ._npy_header import LONGEST, NpyHeader, element_type, npy_descr, read_npy_header

if TYPE_CHECKING:
    import numpy as np

SUFFIX = ".npy"
START = LONGEST + 12
# NumPy's header of a numeric array has 128 bytes.
USUAL = 512
EXTRA = 0x4453
COMMENT = b"statedict "
UNCHECKED = "the file has no checksum: damage cannot be detected"


class Recorded(NamedTuple):
    """The facts that the directory records about an array: its element type, and the name that it is tied to."""

    dtype: DType | None = None
    tied: str | None = None


def read_npz(file: File, limits: Limits = LIMITS, archive: Archive | None = None) -> Checkpoint:
    """Open the Checkpoint in an .npz file; its object maps names to leaves, in the order of the archive."""
    archive = archive or open_zip(file, limits)
    reader = _ArrayReader(file, limits)
    state: dict[str, Any] = OrderedDict()
    ties: dict[str, str] = {}
    for name in archive.members:
        if not name.endswith(SUFFIX):
            raise FormatError("it is not an .npy array", file=file.name, member=name)
    members = located(archive, archive.members.values())
    for member, start in zip(members, first_bytes(archive, members, USUAL)):
        name = member.name.removesuffix(SUFFIX)
        recorded = _recorded(archive, member.name, limits)
        state[name] = _member_value(archive, member, start, reader, recorded)
        if recorded.tied is not None:
            ties[name] = recorded.tied
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
    """Open the Checkpoint in an .npy file; its object is the array."""
    header = read_npy_header(file.read(0, min(file.size, START)), file.name, None, limits)
    raw = partial(file.read, header.size, file.size - header.size)
    extent = Extent(0, file.size, "the array", skip=header.size)
    reader = _ArrayReader(file, limits)
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
    """Yield an error for each member whose bytes do not match their checksum, or those of the array it is tied to."""
    for member, crc in verify_members(archive):
        text = f"its bytes have changed since they were written: CRC-32 is {crc:08x} and should be {member.crc:08x}"
        yield Finding("error", member.name.removesuffix(SUFFIX), text)
    storages = {id(leaf.storage): leaf.storage for leaf in state.values() if isinstance(leaf, Leaf)}
    for twin in source.false_twins(storages.values()):
        yield Finding("error", twin.member.removesuffix(SUFFIX), FALSE_TIE)


def _member_value(archive: Archive, member: Member, start: bytes, reader: _ArrayReader, recorded: Recorded) -> Any:
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
    return reader.value(header, extent, member.nbytes, raw, recorded.dtype)


class _ArrayReader:
    """Turns the arrays of one file into values; `imports` collects the imports of its pickles."""

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
        """Return the leaf of an array of `nbytes` bytes including its header; for other arrays, what is available
        without unpickling.

        `raw` returns the bytes of the elements; it is None if they are too large to be read here.
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
        """Return an array of text or dates as lists; any other array without a leaf, and a very large one, as an Opaque
        value. The checksum is checked.
        """
        dtype = _numpy_type(header.descr)
        opaque = Opaque("numpy", "ndarray", (str(header.descr)[:1000], header.shape))
        if dtype is not None and dtype.hasobject:
            self._note_imports(raw, member)
        # An array without elements can become a list of any number of empty lists.
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
            raise FormatError(f"its {len(data):,} bytes do not match the shape {header.shape}", **where)
        check_addressable(header.shape, dtype.itemsize, **where)
        array = np.frombuffer(data, dtype).reshape(header.shape, order="F" if header.fortran else "C")
        check_text(array, **where)
        try:
            return array.tolist()
        except ValueError as error:
            raise FormatError(f"it is not valid text: {error}", **where) from error

    def _note_imports(self, raw: Callable[[], bytes] | None, member: str) -> None:
        """Record the imports of the pickle that an object array is. A pickle that cannot be read may import anything."""
        found = [Import("numpy", f"ndarray ({member}: a pickle that was not read)", "dangerous")]
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
    """Return NumPy's dtype for a header, as NumPy reads it; None if it is not valid."""
    import numpy as np

    if not _is_plain(descr):
        return None
    try:
        return np.lib.format.descr_to_dtype(descr)
    except (TypeError, ValueError, LookupError, RecursionError, DeprecationWarning):
        return None


def _is_plain(descr: Any) -> bool:
    """Return whether it is one type, or fields of such: NumPy parses comma-separated types by running compiled code."""
    if type(descr) is list:
        return all(type(field) is tuple and len(field) in (2, 3) and _is_plain(field[1]) for field in descr)
    return type(descr) is str and TYPE.fullmatch(descr) is not None


def _recorded(archive: Archive, name: str, limits: Limits) -> Recorded:
    file = archive.file.name
    for kind, content in extra_fields(archive.extras.get(name, b""), name, file):
        if kind == EXTRA:
            fields = read_json(content, file, limits, name)
            if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
                raise FormatError("its extra field in the archive's directory is malformed", file=file, member=name)
            return Recorded(DTYPES.get(fields.get("dtype", "")), fields.get("tied"))
    return Recorded()


def _comment(archive: Archive, limits: Limits) -> dict[str, dict[str, Any]]:
    """Return the archive's comment if statedict wrote it, else an empty dict."""
    if not archive.comment.startswith(COMMENT):
        return {}
    found = read_json(archive.comment.removeprefix(COMMENT), archive.file.name, limits, "the comment")
    if not isinstance(found, dict) or not all(isinstance(part, dict) for part in found.values()):
        raise FormatError("the comment of the archive is malformed", file=archive.file.name)
    return found


def _tie(state: dict[str, Any], ties: Mapping[str, str], crcs: Mapping[str, int], file: str) -> None:
    """Let tied names share the storage of the name they are tied to."""
    for name, first in ties.items():
        one, other = state.get(first), state[name]
        if (
            not isinstance(one, Leaf)
            or not isinstance(other, Leaf)
            or one.spec != other.spec
            or first in ties
            or crcs[name + SUFFIX] != crcs[first + SUFFIX]
        ):
            raise FormatError(
                f"it is recorded as tied to {first!r}, which is a different array", file=file, member=name
            )
        state[name] = one
        extent: Extent = one.storage.where
        one.storage.where = extent._replace(twins=(*extent.twins, other.storage.where))


TYPE = re.compile(r"[<>|=]?[A-Za-z?]\d{0,9}(\[\w{1,10}\])?", re.ASCII)
# A one-letter text, 4 bytes in the file, becomes an object of 60 bytes; larger files justify more of them.
MOST_TEXTS = 100_000
LETTER = 32
