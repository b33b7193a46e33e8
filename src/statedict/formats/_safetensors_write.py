"""safetensors files, written: any state of named tensors simply saves, and every reader of the format reads it.

Tensors are written dense, widest elements first, so that each is aligned where it lies. Tied tensors are all there, since
other readers look for each name; that they are tied is said in the metadata, and restored when we read them. The metadata
also holds checksums, which the format has none of.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from statedict.files import Frame, Part, crc32
from statedict.state import Compound, Leaf, Spec, leaf_of, raw_values

from ..errors import SaveError
from ._pack import elements_of
from ._safetensors_header import DTYPE_OF, LENGTH, PAIRED
from ._safetensors_seal import PREFIX, Seal, begin_header, close_header

ALIGNMENT = 64
CODE_OF = {name: code for code, name in DTYPE_OF.items()}
# Small tensors are put together into writes of this size; pieces of large ones are checksummed while they are in the cache.
BLOCK = 1 << 20


class _Placed(NamedTuple):
    """A tensor, its place among the header's, and its bytes after the header."""

    number: int
    leaf: Leaf
    start: int


def safetensors_parts(obj: Any, metadata: Mapping[str, str] | None = None) -> list[Part]:
    """The file that holds a mapping of names to tensors. Raises SaveError where `obj` is anything else, or has tensors
    that the format cannot hold."""
    leaves = _named_leaves(obj)
    extra = dict(metadata or {})
    _check_metadata(extra)
    placed = _placed(leaves)
    body = _Body(placed)
    seal = Seal(body.crcs, _ties(leaves), _modules(obj))
    tensors = ",".join(_entry_text(name, *entry) for name, entry in zip(leaves, sorted(placed)))

    def header() -> bytes:
        text = f"{begin_header(seal, extra)}{',' if tensors else ''}{tensors}}}"
        raw = text.encode()
        raw += b" " * (-(LENGTH + len(raw)) % ALIGNMENT)
        return len(raw).to_bytes(LENGTH, "little") + close_header(raw)

    try:
        length = len(header())
    except UnicodeEncodeError as error:
        raise SaveError(f"a name cannot be written as UTF-8: {error}") from error
    return [Frame(length, header, last=True), body]


class _Body:
    """All tensors' bytes. `crcs` has each one's CRC-32, by its place in the header, once they have been written."""

    last = False

    def __init__(self, placed: list[_Placed]) -> None:
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
            crc = 0
            for view in elements_of(leaf):
                if leaf.spec.nbytes < BLOCK:
                    crc = crc32(view, crc)
                    waiting.append(view)
                    space += len(view)
                    continue
                for at in range(0, len(view), BLOCK):
                    yield view[at : at + BLOCK]
                    crc = crc32(view[at : at + BLOCK], crc)
            self.crcs[number] = crc
        yield memoryview(b"".join(waiting))


def _named_leaves(obj: Any) -> dict[str, Leaf]:
    """The leaf of each name; raises SaveError, listing the first few, where a value is no strided tensor of a known type."""
    if not isinstance(obj, Mapping):
        raise SaveError(f"safetensors holds a mapping of names to tensors, not a {type(obj).__name__}")
    problems: list[str] = []
    leaves: dict[str, Leaf] = {}
    for name, value in raw_values(obj).items():
        leaf = leaf_of(value)
        problem = _problem(name, value, leaf)
        if problem:
            problems.append(problem)
        elif isinstance(leaf, Leaf):
            leaves[name] = leaf
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise SaveError(
            f"safetensors holds named tensors only: {'; '.join(problems[:5])}{more}. The torch format holds anything"
        )
    return leaves


def _problem(name: Any, value: Any, leaf: Leaf | Compound | None) -> str | None:
    """Why the format cannot hold the value under that name, if so."""
    if not isinstance(name, str) or name == "__metadata__":
        return f"{name!r} is no name for a tensor"
    if leaf is None:
        return f"{name!r} is a {type(value).__name__}"
    if isinstance(leaf, Compound):
        return f"{name!r} is a {leaf.layout} tensor"
    if leaf.spec.dtype.name not in CODE_OF:
        return f"{name!r} is of dtype {leaf.spec.dtype}"
    if not leaf.spec.shape and CODE_OF[leaf.spec.dtype.name] == PAIRED:
        return f"{name!r} is a single pair of 4-bit elements"
    return None


def _check_metadata(metadata: Mapping[str, str]) -> None:
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str) or key.startswith(PREFIX):
            raise SaveError(
                f"metadata maps text to text, and no key begins with {PREFIX!r}; {key!r}: {text!r} does not fit"
            )


def _placed(leaves: Mapping[str, Leaf]) -> list[_Placed]:
    """Each tensor's place among the bytes: the widest elements first, so that all are aligned."""
    numbered = enumerate(leaves.values())
    placed = []
    start = 0
    for number, leaf in sorted(numbered, key=lambda item: -item[1].spec.dtype.itemsize):
        placed.append(_Placed(number, leaf, start))
        start += leaf.spec.nbytes
    return placed


def _ties(leaves: Mapping[str, Leaf]) -> list[list[str]]:
    """Groups of names whose tensors are the same elements of one storage."""
    groups: dict[tuple[object, Spec], list[str]] = {}
    for name, leaf in leaves.items():
        if leaf.spec.numel:
            groups.setdefault((leaf.storage.key, leaf.spec), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _modules(obj: Any) -> OrderedDict[str, Any] | None:
    """The state's `_metadata`, as JSON can hold it."""
    modules = getattr(obj, "_metadata", None)
    if modules is None:
        return None
    try:
        if json.loads(json.dumps(modules)) == modules:
            return OrderedDict(modules)
    except (TypeError, ValueError, RecursionError):
        pass
    raise SaveError("the state's _metadata holds more than text and numbers; safetensors cannot hold it")


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
