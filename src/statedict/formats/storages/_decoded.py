"""Tensors that are decoded from the bytes of others when they are read, a few megabytes at a time: quantised blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import DType, Leaf, Origin, Read, Storage, check_bounds, contiguous

from ...errors import FormatError, StateDictError

if TYPE_CHECKING:
    import numpy as np

    Decode = Callable[[np.ndarray[Any, np.dtype[np.uint8]]], np.ndarray[Any, Any]]

# The bytes of elements to decode at a time.
PIECE = 1 << 20


class Coding(NamedTuple):
    """The value of `Storage.where` here: `decode` makes `elements` elements of each `block` bytes of `raw`."""

    raw: Storage
    block: int
    elements: int
    dtype: DType
    decode: Decode
    member: str


class _Decoded:
    """The Source of decoded storages."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            done = 0
            for piece in _pieces(storage.where, start, start + len(into), verify):
                into[done : done + len(piece)] = piece
                done += len(piece)

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        check_bounds([(storage, start, stop - start)])
        return _pieces(storage.where, start, stop, True)

    def verify(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            raw: Storage = storage.where.raw
            raw.source.verify([raw])

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return None

    def origins(self, leaf: Leaf) -> Iterator[Origin]:
        coding: Coding = leaf.storage.where
        first, last = leaf.spec.offset // coding.elements, -(-leaf.spec.reach // coding.elements)
        yield Origin(coding.raw, first * coding.block, last * coding.block)


def decoded(shape: Sequence[int], coding: Coding) -> Leaf:
    """Return the row-major leaf of the elements decoded from a storage."""
    spec = contiguous(coding.dtype, shape)
    return Leaf(spec, Storage(DECODED, ("decoded", coding.raw.key), spec.nbytes, coding))


def _pieces(coding: Coding, start: int, stop: int, verify: bool) -> Iterator[memoryview]:
    """Yield bytes `start … stop` of the decoded elements, in order."""
    size = coding.elements * coding.dtype.itemsize
    step = max(1, PIECE // size)
    for first in range(start // size, -(-stop // size), step):
        last = min(first + step, -(-stop // size))
        piece = _decode(coding, first, last, verify)
        yield piece[max(start - first * size, 0) : stop - first * size]


def _decode(coding: Coding, first: int, last: int, verify: bool) -> memoryview:
    """Return the elements of blocks `first … last` as bytes."""
    import numpy as np

    raw = memoryview(bytearray((last - first) * coding.block))
    coding.raw.source.read_into([Read(coding.raw, first * coding.block, raw)], verify=verify)
    try:
        with np.errstate(all="ignore"):
            found = coding.decode(np.frombuffer(raw, np.uint8).reshape(last - first, coding.block))
        result = np.ascontiguousarray(found, coding.dtype.numpy).reshape(-1)
    except FormatError as error:
        raise error.located(file=getattr(coding.raw.source, "name", None), member=coding.member) from None
    except StateDictError:
        raise
    except Exception as error:  # the function of a plugin can raise anything
        raise _failed(coding, f"{type(error).__name__}: {error}") from error
    if len(result) != (last - first) * coding.elements:
        raise _failed(
            coding, f"it returned {len(result):,} elements for {last - first:,} blocks of {coding.elements:,}"
        )
    return result.view(np.uint8).data


def _failed(coding: Coding, problem: str) -> FormatError:
    return FormatError(
        f"the function that decodes it failed: {problem}",
        file=getattr(coding.raw.source, "name", None),
        member=coding.member,
    )


DECODED = _Decoded()
