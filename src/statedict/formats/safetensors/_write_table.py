"""Plain tensors for a safetensors file, in columns: entries, places and bytes of 32,000 without an object for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from json.encoder import encode_basestring
from typing import Any

from statedict.files import Payload, crc32
from statedict.state import Wholes, library_of, raw_values

from ._header import DTYPE_OF, PAIRED

CODES = {name: code for code, name in DTYPE_OF.items() if code != PAIRED}
# Below this many, leaves are as quick.
FEW = 32
# Small tensors are put together into chunks of about this size; larger ones are written from where they lie.
BLOCK = 1 << 20
LARGE = 1 << 17


def wholes_of(obj: Any) -> tuple[list[str], Wholes] | None:
    """Names and tensors of a mapping, where all are simply all of a memory of their own; None for anything else, which has
    to be looked at one by one."""
    values = raw_values(obj) if isinstance(obj, Mapping) else {}
    if len(values) < FEW or set(map(type, values)) != {str} or "__metadata__" in values:
        return None
    library = library_of(next(iter(values.values())))
    wholes = None if library is None else library.wholes(list(values.values()))
    if wholes is None or len(set(wholes.pointers)) < len(wholes.pointers):
        return None
    if not all(kind.is_contiguous and kind.dtype.name in CODES for kind in wholes.kinds):
        return None
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return None
    return list(values), wholes


class WholesBody:
    """All tensors' bytes, the widest elements first.

    `entries` is what the header says of each; `crcs` has each one's CRC-32 once they have been written.
    """

    last = False

    def __init__(self, names: Sequence[str], wholes: Wholes) -> None:
        self.nbytes = sum(wholes.sizes)
        self.crcs = [0] * len(names)
        widths = wholes.of_each(-kind.dtype.itemsize for kind in wholes.kinds)
        self._order = sorted(range(len(names)), key=widths.__getitem__)
        self._wholes = wholes.taken(self._order)
        self.entries = self._entries(names)

    def chunks(self) -> Iterator[memoryview]:
        sizes = self._wholes.sizes
        first = space = 0
        for row, nbytes in enumerate(sizes):
            if nbytes >= LARGE or space + nbytes > BLOCK:
                yield self._together(first, row)
                first, space = row, 0
            space += nbytes
            if nbytes >= LARGE:
                yield from Payload(
                    nbytes, partial(self._views, row), partial(self.crcs.__setitem__, self._order[row])
                ).chunks()
                first, space = row + 1, 0
        yield self._together(first, len(sizes))

    def _views(self, row: int) -> tuple[memoryview]:
        return (self._wholes.view(row),)

    def _together(self, start: int, stop: int) -> memoryview:
        contents = self._wholes.copies(start, stop)
        for row, crc in zip(self._order[start:stop], map(crc32, contents)):
            self.crcs[row] = crc
        return memoryview(b"".join(contents))

    def _entries(self, names: Sequence[str]) -> list[str]:
        kinds = [f':{{"dtype":"{CODES[k.dtype.name]}","shape":[{_joined(k.shape)}],' for k in self._wholes.kinds]
        stops = list(accumulate(self._wholes.sizes))
        entries = [""] * len(names)
        for row, kind, stop, nbytes in zip(self._order, self._wholes.of_each(kinds), stops, self._wholes.sizes):
            entries[row] = f'{encode_basestring(names[row])}{kind}"data_offsets":[{stop - nbytes},{stop}]}}'
        return entries


def _joined(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))
