"""Random masks that do not depend on the order, or the pieces, in which they are read.

Element `n` of a mask is made of number `n` of a counter-based generator (Philox), whose key is a hash of a text. The raw
numbers are used, because those of NumPy's `Generator` may differ between versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import Leaf, Read, Storage, check_bounds, contiguous
from statedict.state import dtype as find_dtype

if TYPE_CHECKING:
    import numpy as np

# Philox makes this many numbers for each value of its counter.
_EACH = 4
_PIECE = 1 << 18


class _Mask(NamedTuple):
    """The value of `Storage.where` here: the key of the generator, and the probability of True."""

    key: tuple[int, int]
    density: float


class _Random:
    """The Source of random masks, whose elements are bytes."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            for at in range(0, len(into), _PIECE):
                piece = into[at : at + _PIECE]
                piece[:] = _drawn(storage.where, start + at, len(piece)).view("uint8").data

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        check_bounds([(storage, start, stop - start)])
        for at in range(start, stop, _PIECE):
            yield _drawn(storage.where, at, min(_PIECE, stop - at)).view("uint8").data

    def verify(self, storages: Iterable[Storage]) -> None:
        """Do nothing: there is nothing that could be damaged."""

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return None

    def origins(self, leaf: Leaf) -> Iterator[Any]:
        return iter(())


def random_mask(shape: tuple[int, ...], key: str, density: float) -> Leaf:
    """Return a leaf of booleans, each True with the probability `density`; equal keys give equal elements.

    >>> from statedict.state import read_array
    >>> read_array(random_mask((2, 4), "some text", 0.5)).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 1]]
    """
    digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
    where = _Mask((int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")), density)
    spec = contiguous(find_dtype("bool"), shape)
    return Leaf(spec, Storage(_RANDOM, ("random mask", where, spec.nbytes), spec.nbytes, where))


def _drawn(mask: _Mask, start: int, count: int) -> np.ndarray[Any, Any]:
    import numpy as np

    generator = np.random.Philox(key=np.array(mask.key, np.uint64))
    generator.advance(start // _EACH)
    numbers = generator.random_raw(start % _EACH + count)[start % _EACH :]
    # 53 bits, as in a float64 between 0 and 1.
    return (numbers >> np.uint64(11)) < np.uint64(int(mask.density * (1 << 53)))


_RANDOM = _Random()
