"""safetensors files, written: any state of named tensors simply saves, and every reader of the format reads it.

Tensors are written dense, widest elements first, so that each is aligned where it lies. Tied tensors are all there, since
other readers look for each name; that they are tied is said in the metadata, and restored when we read them. The metadata
also holds checksums, which the format has none of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from statedict.files import Frame, Part, Payload, crc32
from statedict.state import Leaf

from ...errors import SaveError
from .._limits import LIMITS
from ..storages._named import check_metadata, modules_of, named_leaves, ties
from ..storages._pack import elements_of
from ._checksums import PREFIX, Seal, begin_header, close_header
from ._header import DTYPE_OF, LENGTH, PAIRED
from ._write_table import BLOCK, LARGE, WholesBody, wholes_of

ALIGNMENT = 64
# transformers refuses a file that has metadata without this.
FORMAT = {"format": "pt"}
CODE_OF = {name: code for code, name in DTYPE_OF.items()}


class _Placed(NamedTuple):
    """A tensor, its place among the header's, and its bytes after the header."""

    number: int
    leaf: Leaf
    start: int


def safetensors_parts(obj: Any, metadata: Mapping[str, str] | None = None) -> list[Part]:
    """The file that holds a mapping of names to tensors. Raises SaveError where `obj` is anything else, or has tensors
    that the format cannot hold."""
    plain = wholes_of(obj)
    body: _Body | WholesBody
    if plain is None:
        leaves = named_leaves(obj, "safetensors", _unfit)
        body, tied = _Body(leaves), ties(leaves)
    else:
        body, tied = WholesBody(*plain), []
    extra = _checked({**FORMAT, **(metadata or {})})
    seal = Seal(body.crcs, tied, modules_of(obj, "safetensors"))
    tensors = ",".join(body.entries)

    def header() -> bytes:
        text = f"{begin_header(seal, extra)}{',' if tensors else ''}{tensors}}}"
        raw = text.encode()
        raw += b" " * (-(LENGTH + len(raw)) % ALIGNMENT)
        return len(raw).to_bytes(LENGTH, "little") + close_header(raw)

    length = len(header())
    if length > LIMITS.json_bytes:
        raise SaveError(
            f"a header of {length:,} bytes is beyond the limit of {LIMITS.json_bytes:,}: shorten the names or the metadata, "
            "or save in shards (max_shard_size=)"
        )
    return [Frame(length, header, last=True), body]


class _Body:
    """All tensors' bytes.

    `entries` is what the header says of each; `crcs` has each one's CRC-32 once they have been written.
    """

    last = False

    def __init__(self, leaves: Mapping[str, Leaf]) -> None:
        placed = _placed(leaves)
        self.entries = [_entry_text(name, *entry) for name, entry in zip(leaves, sorted(placed))]
        self.crcs = [0] * len(placed)
        self.nbytes = sum(leaf.spec.nbytes for _, leaf, _ in placed)
        self._placed = sorted(placed, key=lambda tensor: tensor.start)

    def chunks(self) -> Iterator[memoryview]:
        waiting: list[memoryview] = []
        space = 0
        for number, leaf, _ in self._placed:
            if leaf.spec.nbytes + space > BLOCK and waiting:
                yield memoryview(b"".join(waiting))
                waiting, space = [], 0
            if leaf.spec.nbytes >= LARGE:
                yield memoryview(b"".join(waiting))
                waiting, space = [], 0
                payload = Payload(leaf.spec.nbytes, partial(elements_of, leaf))
                yield from payload.chunks()
                self.crcs[number] = payload.crc
                continue
            crc = 0
            for view in elements_of(leaf):
                crc = crc32(view, crc)
                waiting.append(view)
                space += len(view)
            self.crcs[number] = crc
        yield memoryview(b"".join(waiting))


def _checked(metadata: Mapping[str, str]) -> dict[str, str]:
    check_metadata(metadata)
    if any(key.startswith(PREFIX) for key in metadata):
        raise SaveError(f"no key of the metadata may begin with {PREFIX!r}")
    return dict(metadata)


def _unfit(name: str, leaf: Leaf) -> str | None:
    code = CODE_OF.get(leaf.spec.dtype.name)
    if name == "__metadata__":
        return "'__metadata__' is no name for a tensor"
    if code is None:
        return f"{name!r} is of dtype {leaf.spec.dtype}"
    return f"{name!r} is a single pair of 4-bit elements" if code == PAIRED and not leaf.spec.shape else None


def _placed(leaves: Mapping[str, Leaf]) -> list[_Placed]:
    """Each tensor's place among the bytes: the widest elements first, so that all are aligned."""
    numbered = enumerate(leaves.values())
    placed = []
    start = 0
    for number, leaf in sorted(numbered, key=lambda item: -item[1].spec.dtype.itemsize):
        placed.append(_Placed(number, leaf, start))
        start += leaf.spec.nbytes
    return placed


def _entry_text(name: str, number: int, leaf: Leaf, start: int) -> str:
    """One tensor's entry in the header."""
    code = CODE_OF[leaf.spec.dtype.name]
    shape = list(leaf.spec.shape)
    if code == PAIRED:
        shape[-1] *= 2
    return (
        f'{json.dumps(name, ensure_ascii=False)}:{{"dtype":"{code}","shape":[{",".join(map(str, shape))}],'
        f'"data_offsets":[{start},{start + leaf.spec.nbytes}]}}'
    )
