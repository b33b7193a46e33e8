"""Write safetensors files: any state of named tensors, readable by every reader of the format.

Tensors are written dense, widest elements first, so that each is aligned. Tied tensors are written once, and the metadata
maps the other names to the one in the file (`_aliases`); reading restores the ties. It also contains checksums, which the
format itself does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from json.encoder import encode_basestring
from typing import Any

from statedict.files import Frame, Part, Payload, crc32
from statedict.state import Leaf, Spec, Table, copies_of, library_of, raw_values, single_rows, view_of

from ...errors import SaveError
from .._limits import LIMITS
from ..storages._named import check_metadata, modules_of, named_leaves
from ..storages._pack import contents_of, elements_of, key_in_parts
from ._aliases import Alias, tied_aliases
from ._annotations import PREFIX, Annotations, begin_header, close_header
from ._header import DTYPE_OF, LENGTH, PAIRED
from ._wrappers import taken_apart

ALIGNMENT = 64
# transformers refuses a file whose metadata lacks this.
FORMAT = {"format": "pt"}
CODE_OF = {name: code for code, name in DTYPE_OF.items()}
# Small tensors are joined to chunks of about this size; larger ones are written from their own memory.
BLOCK = 1 << 20
LARGE = 1 << 17


def safetensors_parts(obj: Any, metadata: Mapping[str, str] | None = None) -> list[Part]:
    """Return the parts of the file with a mapping of names to tensors. Raises SaveError if `obj` is anything else, or
    has tensors that the format cannot store.
    """
    live = live_tensors(obj)
    recipes: dict[str, Any] = {}
    aliases: dict[str, Alias] = {}
    extra = _checked({**FORMAT, **(metadata or {})})
    if live is None:
        values, recipes = taken_apart(obj)
        leaves = named_leaves(values, "safetensors", _unfit)
        aliases = tied_aliases(leaves, extra)
        kept = {name: leaf for name, leaf in leaves.items() if name not in aliases}
        body = _Body(list(kept), single_rows(list(kept.values())), list(kept.values()))
        extra |= {name: alias.of for name, alias in aliases.items()}
    else:
        body = _Body(list(raw_values(obj)), live)
    places = {name: alias.place for name, alias in aliases.items()}
    annotations = Annotations(body.crcs, places, modules_of(obj, "safetensors"), recipes)
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
    return [Frame(length, header, last=True), *body.parts()]


def live_tensors(obj: Any) -> Table | None:
    """Return the tensors of a mapping column-wise if each is the whole of its own memory; None for anything else, which is
    examined one by one."""
    values = raw_values(obj) if isinstance(obj, Mapping) else {}
    if set(map(type, values)) != {str} or "__metadata__" in values:
        return None
    library = library_of(next(iter(values.values())))
    table = None if library is None else library.table(list(values.values()))
    if table is None or len(set(table.starts)) < len(table):
        return None
    if not all(kind.spec.is_contiguous and _unfit("", kind.spec) is None for kind in table.kinds):
        return None
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return None
    return table


class _Body:
    """The bytes of all tensors, widest elements first.

    `entries` are the tensors' texts in the header; `crcs` has the CRC-32 of each after it was written. The bytes come from
    `leaves`, or from memory if that is None.
    """

    def __init__(self, names: Sequence[str], table: Table, leaves: Sequence[Leaf] | None = None) -> None:
        widths = table.of_each(lambda kind: -kind.spec.dtype.itemsize)
        self._order = sorted(range(len(names)), key=widths.__getitem__)
        self._table = table.taken(self._order)
        self._leaves = None if leaves is None else [leaves[row] for row in self._order]
        self.crcs = [0] * len(names)
        self.entries = self._entries(names)

    def parts(self) -> list[Part]:
        """Return the parts of the file: those whose bytes may be distributed over several processes each by itself."""
        parts: list[Part] = []
        first = 0
        for row, leaf in enumerate(self._leaves or ()):
            of = key_in_parts(leaf.storage)
            if of is not None:
                tell = partial(self.crcs.__setitem__, self._order[row])
                payload = Payload(self._table.sizes[row], partial(self._views, row), tell, of)
                parts += _Run(self, range(first, row)), payload
                first = row + 1
        return [*parts, _Run(self, range(first, len(self._table)))]

    def nbytes(self, rows: range) -> int:
        """Return the size of consecutive tensors, in the order of the file."""
        return sum(self._table.sizes[rows.start : rows.stop])

    def chunks(self, rows: range) -> Iterator[memoryview]:
        """Yield the bytes of consecutive tensors."""
        first, space = rows.start, 0
        for row in rows:
            nbytes = self._table.sizes[row]
            if nbytes >= LARGE or space + nbytes > BLOCK:
                yield self._joined(first, row)
                first, space = row, 0
            space += nbytes
            if nbytes >= LARGE:
                tell = partial(self.crcs.__setitem__, self._order[row])
                yield from Payload(nbytes, partial(self._views, row), tell).chunks()
                first, space = row + 1, 0
        yield self._joined(first, rows.stop)

    def _views(self, row: int) -> Iterable[memoryview]:
        return (view_of(self._table, row),) if self._leaves is None else elements_of(self._leaves[row])

    def _joined(self, start: int, stop: int) -> memoryview:
        if self._leaves is None:
            contents: Sequence[bytes | memoryview] = copies_of(self._table, start, stop)
            crcs: Iterable[int] = map(crc32, contents)
        else:
            found = contents_of(self._leaves[start:stop])
            contents, crcs = [content for content, _ in found], [crc for _, crc in found]
        for row, crc in zip(self._order[start:stop], crcs):
            self.crcs[row] = crc
        return memoryview(b"".join(contents))

    def _entries(self, names: Sequence[str]) -> list[str]:
        sizes = self._table.sizes
        kinds = self._table.of_each(lambda kind: _kind_text(kind.spec))
        entries = [""] * len(names)
        for row, kind, stop, nbytes in zip(self._order, kinds, accumulate(sizes), sizes):
            entries[row] = f'{encode_basestring(names[row])}{kind}"data_offsets":[{stop - nbytes},{stop}]}}'
        return entries


class _Run:
    """The part of a file with the bytes of consecutive tensors."""

    last = False

    def __init__(self, body: _Body, rows: range) -> None:
        self._body = body
        self._rows = rows
        self.nbytes = body.nbytes(rows)

    def chunks(self) -> Iterator[memoryview]:
        return self._body.chunks(self._rows)


def _checked(metadata: Mapping[str, str]) -> dict[str, str]:
    check_metadata(metadata)
    if any(key.startswith(PREFIX) for key in metadata):
        raise SaveError(f"keys of the metadata must not begin with {PREFIX!r}")
    return dict(metadata)


def _unfit(name: str, tensor: Leaf | Spec) -> str | None:
    spec = tensor.spec if isinstance(tensor, Leaf) else tensor
    code = CODE_OF.get(spec.dtype.name)
    if name == "__metadata__":
        return "'__metadata__' is not allowed as the name of a tensor"
    if code is None:
        return f"{name!r} has the dtype {spec.dtype}"
    return f"{name!r} is a single pair of 4-bit elements" if code == PAIRED and not spec.shape else None


def _kind_text(spec: Spec) -> str:
    """Return the text between name and offsets in the header's entry of a tensor."""
    code, shape = CODE_OF[spec.dtype.name], list(spec.shape)
    if code == PAIRED:
        shape[-1] *= 2
    return f':{{"dtype":"{code}","shape":[{",".join(map(str, shape))}],'
