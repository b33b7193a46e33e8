"""A format of twenty lines, and what its reader can get wrong, one fault at a time.

A file is `TOY1`, the lengths of a JSON header and of the file, the header, and the bytes of the tensors. The header has
name, dtype, shape, offset and length of each tensor. There are no checksums.
"""

from __future__ import annotations

import json
import pickle
import struct
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from statedict import files
from statedict.errors import FormatError, TruncatedError
from statedict.files import File
from statedict.formats import Checkpoint, Import
from statedict.state import DTYPES, Leaf, Read, StateDict, Storage, check_bounds, contiguous

MAGIC, HEAD = b"TOY1", "<4sIQ"
SIZE = struct.calcsize(HEAD)
PIECE = 64 << 10


def written(
    state: Mapping[str, Any], metadata: Mapping[str, str], faults: Collection[str] = (), pickled: bytes = b""
) -> bytes:
    """Return a file."""
    data, places, tensors = b"", {}, {}
    for name, array in state.items():
        if id(array) not in places or "unties" in faults:
            raw = array.tobytes("A" if "writes memory order" in faults else "C")
            places[id(array)] = len(data), len(raw)
            data += raw
        tensors[name] = [_dtype(array), list(array.shape), *places[id(array)]]
    header = json.dumps({"tensors": tensors, "texts": dict(metadata), "pickle": pickled.hex()}).encode()
    return struct.pack(HEAD, MAGIC, len(header), SIZE + len(header) + len(data)) + header + data


def _dtype(array: Any) -> str:
    return next(name for name, of in DTYPES.items() if "," not in of.carrier and of.numpy == array.dtype)


def opened(source: Any, faults: Collection[str] = ()) -> Checkpoint:
    """Open a path, a file object or a File."""
    file = files.open(source)
    try:
        return _read(file, faults)
    except FormatError as error:
        if "does not name the file" not in faults:
            error.located(file=file.name)
        raise


def _read(file: File, faults: Collection[str]) -> Checkpoint:
    if file.size < SIZE and "crashes" not in faults:
        raise TruncatedError("the file ends within its header")
    magic, length, size = struct.unpack(HEAD, file.read(0, min(SIZE, file.size)))
    if magic != MAGIC:
        raise FormatError("the file does not begin with TOY1")
    try:
        header = json.loads(file.read(SIZE, length))
        tensors, texts, pickled = header["tensors"], header["texts"], bytes.fromhex(header["pickle"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, FormatError) or (isinstance(error, KeyError) and "crashes on damage" in faults):
            raise
        raise FormatError("its header is damaged") from error
    if "trusts lengths" in faults and size > file.size:
        bytearray(min(size, 1 << 26))
    if file.size < size and "ignores truncation" not in faults:
        raise TruncatedError(f"it has {file.size:,} of {size:,} bytes")
    if file.size > size and "ignores what follows" not in faults:
        raise FormatError(f"{file.size - size:,} bytes follow the last tensor")
    if "reads eagerly" in faults:
        for start in range(0, file.size, PIECE):
            file.read(start, min(PIECE, file.size - start))
    if "allocates when opened" in faults:
        bytearray(file.size)
    if "unpickles" in faults and pickled:
        pickle.loads(pickled)
    source = ToySource(file, size, SIZE + length, faults)
    names = sorted(tensors) if "sorts names" in faults else list(tensors)
    try:
        leaves = {name: source.leaf(*tensors[name]) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, FormatError) else FormatError("its header is damaged") from error
    return Checkpoint(
        file.name,
        "other" if "looks at names" in faults and file.name.endswith(".pt") else "toy",
        StateDict(leaves),
        size=file.size + ("miscounts" in faults),
        globals=[Import("builtins", "eval", "dangerous")] if pickled else [],
        metadata={} if "drops metadata" in faults else texts,
        close=(lambda: None) if "stays open" in faults else file.close,
    )


class ToySource:
    """The Source of a file's tensors."""

    def __init__(self, file: File, size: int, start: int, faults: Collection[str]) -> None:
        self.file = file
        self.name = file.name
        self.size = size
        self.start = start
        self.faults = faults
        self.storages: dict[tuple[int, int], Storage] = {}
        self.place = 0

    def leaf(self, dtype: str, shape: Sequence[int], offset: int, nbytes: int) -> Leaf:
        if dtype not in DTYPES or not all(
            isinstance(number, int) and number >= 0 for number in (*shape, offset, nbytes)
        ):
            raise FormatError("its header describes an invalid tensor")
        spec = contiguous(DTYPES[dtype], [1] if "has no scalars" in self.faults and not shape else shape)
        if self.start + offset + nbytes > self.size and "does not check offsets" not in self.faults:
            raise FormatError("a tensor extends beyond the file")
        storage = self.storages.setdefault((offset, nbytes), Storage(self, (id(self), offset, nbytes), nbytes, offset))
        make = Leaf.unchecked if "does not check shapes" in self.faults else Leaf
        return make(spec, storage)

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            place = self.start + storage.where + start
            if "shares its place" in self.faults:
                self.place = place
                time.sleep(0.0001)
                place = self.place
            if "reads everything" in self.faults:
                for at in range(0, self.file.size, PIECE):
                    self.file.read(at, min(PIECE, self.file.size - at))
            if "allocates twice" in self.faults:
                into[:] = self.file.read(place, len(into))
            else:
                have = (
                    max(0, min(len(into), self.file.size - place)) if "ignores truncation" in self.faults else len(into)
                )
                self.file.read_into([files.Span(place, into[:have])])

    def verify(self, storages: Iterable[Storage]) -> None:
        """Do nothing: there are no checksums."""

    def view(self, storage: Storage, *, writable: bool = False) -> None:
        return None
