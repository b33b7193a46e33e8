"""Write safetensors files: any state of named tensors, readable by every reader of the format.

Tensors are written dense, widest elements first, so that each is aligned. Tied tensors are all written, because other
readers expect each name; the metadata records the ties, and reading restores them. It also contains checksums, which
the format itself does not have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from statedict.files import Frame, Part, Payload
from statedict.state import Leaf

from ...errors import SaveError
from .._limits import LIMITS
from ..storages._named import check_metadata, modules_of, named_leaves, ties
from ..storages._pack import contents_of, elements_of, key_in_parts
from ._annotations import PREFIX, Annotations, begin_header, close_header
from ._header import DTYPE_OF, LENGTH, PAIRED
from ._wrappers import taken_apart
from ._write_table import BLOCK, LARGE, WholesBody, wholes_of

ALIGNMENT = 64
# transformers refuses a file whose metadata lacks this.
FORMAT = {"format": "pt"}
CODE_OF = {name: code for code, name in DTYPE_OF.items()}


class _Placed(NamedTuple):
    """A tensor, its position in the header, and the offset of its bytes after the header."""

    number: int
    leaf: Leaf
    start: int


def safetensors_parts(obj: Any, metadata: Mapping[str, str] | None = None) -> list[Part]:
    """Return the parts of the file with a mapping of names to tensors. Raises SaveError if `obj` is anything else, or
    has tensors that the format cannot store.
    """
    plain = wholes_of(obj)
    body: _Body | WholesBody
    parts: list[Part]
    recipes: dict[str, Any] = {}
    if plain is None:
        values, recipes = taken_apart(obj)
        leaves = named_leaves(values, "safetensors", _unfit)
        body, tied = _Body(leaves), ties(leaves)
        parts = body.parts
    else:
        body, tied = WholesBody(*plain), []
        parts = [body]
    extra = _checked({**FORMAT, **(metadata or {})})
    annotations = Annotations(body.crcs, tied, modules_of(obj, "safetensors"), recipes)
    tensors = ",".join(body.entries)

    def header() -> bytes:
        text = f"{begin_header(annotations, extra)}{',' if tensors else ''}{tensors}}}"
        raw = text.encode()
        raw += b" " * (-(LENGTH + len(raw)) % ALIGNMENT)
        return len(raw).to_bytes(LENGTH, "little") + close_header(raw)

    length = len(header())
    if length > LIMITS.json_bytes:
        raise SaveError(
            f"a header of {length:,} bytes exceeds the limit of {LIMITS.json_bytes:,}: shorten the names or the metadata, "
            "or save in shards (max_shard_size=)"
        )
    return [Frame(length, header, last=True), *parts]


class _Body:
    """The bytes of all tensors, as `parts`.

    `entries` are the tensors' texts in the header; `crcs` has the CRC-32 of each after it was written.
    """

    def __init__(self, leaves: Mapping[str, Leaf]) -> None:
        placed = _placed(leaves)
        self.entries = [_entry_text(name, *entry) for name, entry in zip(leaves, sorted(placed))]
        self.crcs = [0] * len(placed)
        self.parts: list[Part] = []
        small: list[_Placed] = []
        for tensor in sorted(placed, key=lambda tensor: tensor.start):
            nbytes, of = tensor.leaf.spec.nbytes, key_in_parts(tensor.leaf.storage)
            if nbytes < LARGE and of is None:
                small.append(tensor)
                continue
            views, tell = partial(elements_of, tensor.leaf), partial(self.crcs.__setitem__, tensor.number)
            self.parts += _Small(small, self.crcs), Payload(nbytes, views, tell, of)
            small = []
        self.parts.append(_Small(small, self.crcs))


class _Small:
    """The bytes of consecutive small tensors; their checksums are put into `crcs`."""

    last = False

    def __init__(self, tensors: Sequence[_Placed], crcs: list[int]) -> None:
        self.nbytes = sum(tensor.leaf.spec.nbytes for tensor in tensors)
        self._tensors = tensors
        self._crcs = crcs

    def chunks(self) -> Iterator[memoryview]:
        waiting: list[_Placed] = []
        space = 0
        for tensor in self._tensors:
            if tensor.leaf.spec.nbytes + space > BLOCK:
                yield self._together(waiting)
                waiting, space = [], 0
            waiting.append(tensor)
            space += tensor.leaf.spec.nbytes
        yield self._together(waiting)

    def _together(self, tensors: Sequence[_Placed]) -> memoryview:
        """Return a copy of the bytes of some tensors; their CRCs are known afterwards."""
        contents = contents_of([tensor.leaf for tensor in tensors])
        for tensor, (_, crc) in zip(tensors, contents):
            self._crcs[tensor.number] = crc
        return memoryview(b"".join([content for content, _ in contents]))


def _checked(metadata: Mapping[str, str]) -> dict[str, str]:
    check_metadata(metadata)
    if any(key.startswith(PREFIX) for key in metadata):
        raise SaveError(f"keys of the metadata must not begin with {PREFIX!r}")
    return dict(metadata)


def _unfit(name: str, leaf: Leaf) -> str | None:
    code = CODE_OF.get(leaf.spec.dtype.name)
    if name == "__metadata__":
        return "'__metadata__' is not allowed as the name of a tensor"
    if code is None:
        return f"{name!r} has the dtype {leaf.spec.dtype}"
    return f"{name!r} is a single pair of 4-bit elements" if code == PAIRED and not leaf.spec.shape else None


def _placed(leaves: Mapping[str, Leaf]) -> list[_Placed]:
    """Return the offset of each tensor: widest elements first, so that all are aligned."""
    numbered = enumerate(leaves.values())
    placed = []
    start = 0
    for number, leaf in sorted(numbered, key=lambda item: -item[1].spec.dtype.itemsize):
        placed.append(_Placed(number, leaf, start))
        start += leaf.spec.nbytes
    return placed


def _entry_text(name: str, number: int, leaf: Leaf, start: int) -> str:
    """Return the text of one tensor in the header."""
    code = CODE_OF[leaf.spec.dtype.name]
    shape = list(leaf.spec.shape)
    if code == PAIRED:
        shape[-1] *= 2
    return (
        f'{json.dumps(name, ensure_ascii=False)}:{{"dtype":"{code}","shape":[{",".join(map(str, shape))}],'
        f'"data_offsets":[{start},{start + leaf.spec.nbytes}]}}'
    )
