"""Read GGUF, the format of llama.cpp: named tensors, usually quantised, and metadata. (docs/formats/gguf.md)

A file is a header (metadata, and for each tensor its name, shape, kind and offset) and the tensors, each at a multiple of
the alignment. Quantised tensors are read as float32, with the values that llama.cpp computes from them.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from statedict.errors import FormatError, TruncatedError, UnknownFormatError
from statedict.formats import Checkpoint, File, FileTensors, Leaf, Limits

if TYPE_CHECKING:
    import numpy as np

    Bytes = np.ndarray[Any, np.dtype[np.uint8]]
    Floats = np.ndarray[Any, np.dtype[np.float32]]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
# The header is read in pieces of this size.
AHEAD = 1 << 20
# Types of metadata: the codes of `struct`, in the order of their numbers; text and arrays are none of these.
NUMBERS = dict(enumerate("BbHhIif?")) | dict(enumerate("Qqd", 10))
SIZES = {code: struct.calcsize(f"={code}") for code in NUMBERS.values()}
TEXT, ARRAY = 8, 9


class TensorKind(NamedTuple):
    """How a kind of tensor is stored: as elements of `dtype`, or in blocks of `elements` elements and `nbytes` bytes."""

    name: str
    elements: int
    nbytes: int
    dtype: str = ""


class Entry(NamedTuple):
    """A tensor in the header; `offset` counts from the end of the header."""

    name: str
    shape: tuple[int, ...]
    kind: TensorKind
    offset: int
    nbytes: int


def read_gguf(file: File, limits: Limits) -> Checkpoint:
    """Open the Checkpoint in a GGUF file; its object maps names to leaves, in the order of the header."""
    header = _Header(file, limits)
    metadata = {name: _text_of(value) for name, value in header.metadata.items()}
    tensors = FileTensors(file, limits)
    state = {entry.name: _leaf(tensors, entry, header) for entry in header.entries}
    notes = ["the file has no checksums: damage to its tensors cannot be detected"]
    notes += _notes_on_kinds(Counter(entry.kind.name for entry in header.entries if not entry.kind.dtype))
    if header.metadata.get("split.count", 1) != 1:
        notes.append(
            f"this is one of {metadata['split.count']} parts of a model: open the directory to read all of them"
        )
    if header.trailing:
        notes.append(f"{header.trailing:,} bytes after the last tensor were not read")
    return Checkpoint(
        file.name,
        "gguf",
        state,
        size=file.size,
        notes=notes,
        metadata=metadata,
        checks=tensors.checks,
        close=file.close,
    )


def _text_of(value: Any) -> str:
    """Return a value of the metadata as text: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _notes_on_kinds(kinds: Counter[str]) -> Iterator[str]:
    """Return which quantised tensors are read as float32, and which cannot be read."""
    if not kinds:
        return
    from ._gguf_blocks import DECODERS

    for supported, text in ((True, "quantised tensors are read as float32"), (False, "tensors cannot be read")):
        counts = [f"{count:,} {name}" for name, count in kinds.items() if (name in DECODERS) is supported]
        if counts:
            yield f"{text}: {', '.join(counts)}"


def _leaf(tensors: FileTensors, entry: Entry, header: _Header) -> Leaf:
    name, shape, kind, offset, nbytes = entry
    if kind.dtype:
        order: Literal["little", "big"] = "little" if header.order == "<" else "big"
        return tensors.tensor(name, kind.dtype, shape, header.end + offset, nbytes, byteorder=order)
    decode, block = partial(_decode, entry, header.order), (kind.nbytes, kind.elements)
    return tensors.decoded(name, "float32", shape, header.end + offset, nbytes, decode, block=block)


def _decode(entry: Entry, order: str, blocks: Bytes) -> Floats:
    from ._gguf_blocks import DECODERS

    if entry.kind.name not in DECODERS:
        raise FormatError(
            f"its elements are of the kind {entry.kind.name}, which is not supported",
            member=entry.name,
            hint="leave it out, or convert the file to another kind with llama-quantize",
        )
    return DECODERS[entry.kind.name](blocks, order)


class _Header:
    """The header of a file.

    Attributes:
        order: the byte order of the file, as in `struct`.
        metadata: the values by name: text, numbers, and lists.
        entries: the tensors, of different names and without a common byte.
        end: where the tensors begin.
        trailing: how many bytes follow the last tensor and what aligns its end.
    """

    def __init__(self, file: File, limits: Limits) -> None:
        self.file, self.limits, self.order = file, limits, "<"
        self._at, self._start, self._stop, self._buffer = len(MAGIC), 0, 0, b""
        version = self._number("I")
        if not version & 0xFFFF:
            self.order, self._at = ">", len(MAGIC)
            version = self._number("I")
        if version not in VERSIONS:
            raise UnknownFormatError(
                f"this is a GGUF file of version {version:,}, which is not supported; versions 2 and 3 are",
                file=file.name,
            )
        count, keys = self._number("Q"), self._number("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(keys):
            name = self._text()
            if name in self.metadata:
                raise self._invalid(f"the metadata has the name {name[:200]!r} twice")
            self.metadata[name] = self._value(self._number("I"))
        rows = [(self._text(), self._shape(), self._number("I"), self._number("Q")) for _ in range(count)]
        alignment = self.metadata.get(ALIGNMENT, 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self._invalid(f"the alignment is {str(alignment)[:200]}, which is not a power of two")
        self.end = -(-self._at // alignment) * alignment
        stops = sorted({offset for *_, offset in rows} | {max(file.size - self.end, 0)})
        after = dict(pairwise(stops))
        self.entries = [self._entry(*row, after.get(row[3], row[3])) for row in rows]
        self._check(alignment)
        last = max((entry.offset + entry.nbytes for entry in self.entries), default=0)
        self.trailing = max(file.size - self.end - -(-last // alignment) * alignment, 0)

    def _check(self, alignment: int) -> None:
        """Raise FormatError, with the name, for a tensor that is not aligned, or overlaps another."""
        for name, _, _, offset, _ in self.entries:
            if offset % alignment:
                raise self._invalid(f"its offset {offset:,} is not a multiple of the alignment {alignment:,}", name)
        stored = sorted((entry for entry in self.entries if entry.nbytes), key=lambda entry: entry.offset)
        for one, next in pairwise(stored):
            if one.offset + one.nbytes > next.offset:
                raise self._invalid(f"its bytes overlap those of {one.name[:200]!r}", next.name)

    def _entry(self, name: str, shape: tuple[int, ...], number: int, offset: int, stop: int) -> Entry:
        """Return the entry of a tensor, which if its kind is unknown has all bytes up to `stop`."""
        count = prod(shape)
        kind = KINDS.get(number)
        if kind is None:
            kind = TensorKind(f"{number:,}", max(count, 1), stop - offset)
            if count > 8 * kind.nbytes:
                raise self._invalid(f"{kind.nbytes:,} bytes are too few for a tensor of shape {list(shape)}", name)
        elif shape and shape[-1] % kind.elements:
            raise self._invalid(f"rows of {shape[-1]:,} elements are not made of blocks of {kind.elements:,}", name)
        return Entry(name, shape, kind, offset, -(-count // kind.elements) * kind.nbytes)

    def _shape(self) -> tuple[int, ...]:
        count = self._number("I")
        if count > self.limits.dimensions:
            raise self.limits.exceeded("dimensions", f"a tensor of {count:,} dimensions")
        return self._numbers("Q", count)[::-1]

    def _value(self, type: int, depth: int = 1) -> Any:
        if type in NUMBERS:
            return self._number(NUMBERS[type])
        if type == TEXT:
            return self._text()
        if type != ARRAY:
            raise self._invalid(f"the metadata has a value of the unknown type {type:,}")
        if depth > self.limits.json_depth:
            raise self.limits.exceeded("json_depth", f"metadata nested {depth:,} deep")
        item, count = self._number("I"), self._number("Q")
        if item in NUMBERS:
            return list(self._numbers(NUMBERS[item], count))
        return [self._value(item, depth + 1) for _ in range(count)]

    def _text(self) -> str:
        nbytes = self._number("Q")
        if nbytes > self.limits.string_bytes:
            raise self.limits.exceeded("string_bytes", f"a string of {nbytes:,} bytes")
        try:
            return self._take(nbytes).decode()
        except UnicodeDecodeError as error:
            raise self._invalid(f"a text in the header is not valid UTF-8: {error.reason}") from error

    def _number(self, code: str) -> Any:
        return struct.unpack(self.order + code, self._take(SIZES[code]))[0]

    def _numbers(self, code: str, count: int) -> tuple[Any, ...]:
        return struct.unpack(f"{self.order}{count}{code}", self._take(count * SIZES[code]))

    def _take(self, nbytes: int) -> bytes:
        """Return the next bytes of the header."""
        first, self._at = self._at, self._at + nbytes
        if self._at > self._stop:
            self._fill(first, nbytes)
        return self._buffer[first - self._start : self._at - self._start]

    def _fill(self, first: int, nbytes: int) -> None:
        """Read the bytes from `first` on, at least this many, into the buffer."""
        if first + nbytes > self.file.size:
            raise TruncatedError(f"the header needs {nbytes:,} more bytes", file=self.file.name, offset=first)
        if first + nbytes > self.limits.json_bytes:
            raise self.limits.exceeded("json_bytes", f"a header of at least {first + nbytes:,} bytes")
        stop = min(first + max(nbytes, AHEAD), self.file.size, self.limits.json_bytes)
        self._start, self._stop, self._buffer = first, stop, self.file.read(first, stop - first)

    def _invalid(self, problem: str, name: str | None = None) -> FormatError:
        return FormatError(problem, file=self.file.name, member=name, offset=self._at if name is None else None)


KINDS = {
    0: TensorKind("F32", 1, 4, "float32"),
    1: TensorKind("F16", 1, 2, "float16"),
    2: TensorKind("Q4_0", 32, 18),
    3: TensorKind("Q4_1", 32, 20),
    6: TensorKind("Q5_0", 32, 22),
    7: TensorKind("Q5_1", 32, 24),
    8: TensorKind("Q8_0", 32, 34),
    9: TensorKind("Q8_1", 32, 40),
    10: TensorKind("Q2_K", 256, 84),
    11: TensorKind("Q3_K", 256, 110),
    12: TensorKind("Q4_K", 256, 144),
    13: TensorKind("Q5_K", 256, 176),
    14: TensorKind("Q6_K", 256, 210),
    15: TensorKind("Q8_K", 256, 292),
    16: TensorKind("IQ2_XXS", 256, 66),
    17: TensorKind("IQ2_XS", 256, 74),
    18: TensorKind("IQ3_XXS", 256, 98),
    19: TensorKind("IQ1_S", 256, 50),
    20: TensorKind("IQ4_NL", 32, 18),
    21: TensorKind("IQ3_S", 256, 110),
    22: TensorKind("IQ2_S", 256, 82),
    23: TensorKind("IQ4_XS", 256, 136),
    24: TensorKind("I8", 1, 1, "int8"),
    25: TensorKind("I16", 1, 2, "int16"),
    26: TensorKind("I32", 1, 4, "int32"),
    27: TensorKind("I64", 1, 8, "int64"),
    28: TensorKind("F64", 1, 8, "float64"),
    29: TensorKind("IQ1_M", 256, 56),
    30: TensorKind("BF16", 1, 2, "bfloat16"),
    34: TensorKind("TQ1_0", 256, 54),
    35: TensorKind("TQ2_0", 256, 66),
    39: TensorKind("MXFP4", 32, 17),
    40: TensorKind("NVFP4", 64, 36),
}
