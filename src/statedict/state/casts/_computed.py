"""Leaves that are computed from other leaves when they are read: casts, slices, concatenations, averages.

An executed plan is a StateDict of such leaves. They are read when the state is saved or loaded, one tensor at a time, so the
conversion of a file needs only the memory of its largest tensor. An `elementwise` leaf needs only that of a few pieces: it
is computed piece by piece while its inputs are streamed, each once, from its beginning to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from ..regions._boxes import Box, box_shown, whole_box
from ..regions._origins import Origin, origins
from ..regions._parts import Parts
from ..regions._read_pieces import BAND, regrouped, stream_elements
from ..regions._region import arranged, region
from ..tensors._dtype import DType
from ..tensors._leaf import PLAIN, Leaf, Read, Spec, Storage, Traits, check_bounds, contiguous
from ..tensors._pieces import row_major

if TYPE_CHECKING:
    import numpy as np

Function = Callable[..., "np.ndarray[Any, Any]"]
Within = Callable[[Box], Leaf]


class Computation(NamedTuple):
    """The value of `Storage.where` here; the arguments of `computed`. `elementwise`: the function accepts flat pieces."""

    function: Function
    inputs: tuple[Leaf, ...]
    spec: Spec
    within: Within | None
    elementwise: bool = False


class _Computed:
    """The Source of computed storages."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            at = 0
            for piece in _pieces(storage, start, start + len(into), verify):
                into[at : at + len(piece)] = piece
                at += len(piece)

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        check_bounds([(storage, start, stop - start)])
        yield from _pieces(storage, start, stop, verify=True)

    def verify(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            computation: Computation = storage.where
            for leaf in computation.inputs:
                leaf.storage.source.verify([leaf.storage])

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        import numpy as np

        from ..tensors._numpy import bytes_of

        if _is_small(storage.where):
            return bytes_of(np.ascontiguousarray(_whole(storage.where, verify=True)))
        whole = memoryview(bytearray(storage.nbytes))
        self.read_into([Read(storage, 0, whole)])
        return whole

    def part(self, leaf: Leaf) -> Leaf:
        computation: Computation = leaf.storage.where
        shown = box_shown(leaf.spec, computation.spec.shape)
        if shown is not None and computation.within is not None:
            return arranged(computation.within(shown[0]), leaf, shown[1])
        for each in computation.inputs:
            if isinstance(each, Parts):
                each.whole()  # raises PartError now, not when it is read
        return computed(leaf.spec, [leaf], _same, leaf.traits._replace(conj=False, neg=False))

    def origins(self, leaf: Leaf) -> Iterator[Origin]:
        computation: Computation = leaf.storage.where
        shown = box_shown(leaf.spec, computation.spec.shape)
        if shown is not None and computation.within is not None and shown[0] != whole_box(computation.spec.shape):
            return origins(computation.within(shown[0]))
        return chain.from_iterable(map(origins, computation.inputs))


def computed(
    spec: Spec, inputs: Sequence[Leaf], function: Function, traits: Traits = PLAIN, *, within: Within | None = None
) -> Leaf:
    """Return a leaf with `spec` (dense) whose elements, in row-major order, are those of `function(*arrays of inputs)`.

    They are computed at each read. A result that is a view of an input is copied a few megabytes at a time.

    `within(box)` returns the leaf of the result's elements in a box, made from no more of the inputs than that needs.
    Without it, a part of the result is cut out of the whole.

    >>> from statedict.state import leaf_of, read_array
    >>> a = leaf_of(np.array([1.0, 2.0]))
    >>> read_array(computed(a.spec.dense(), [a], lambda x: x * 2))
    array([2., 4.])
    """
    dense = spec.dense()
    where = Computation(function, tuple(inputs), dense, within)
    return Leaf(dense, Storage(COMPUTED, ("computed", id(where)), dense.nbytes, where), traits)


def elementwise(dtype: DType, inputs: Sequence[Leaf], function: Function, traits: Traits = PLAIN) -> Leaf:
    """Return a leaf of `dtype` whose elements are a function of the inputs' elements at the same place.

    The inputs have the same shape. `function` gets an array for each, of any shape, and returns one of that shape.

    >>> from statedict.state import leaf_of, read_array
    >>> a, b = leaf_of(np.array([1.0, 2.0])), leaf_of(np.array([3.0, 4.0]))
    >>> read_array(elementwise(a.spec.dtype, [a, b], lambda x, y: x * y))
    array([3., 8.])
    """

    def within(box: Box) -> Leaf:
        return elementwise(dtype, [region(leaf, box) for leaf in inputs], function, traits)

    spec = contiguous(dtype, inputs[0].spec.shape)
    where = Computation(function, tuple(inputs), spec, within, elementwise=True)
    return Leaf(spec, Storage(COMPUTED, ("computed", id(where)), spec.nbytes, where), traits)


def _pieces(storage: Storage, start: int, stop: int, verify: bool) -> Iterator[memoryview]:
    """Yield bytes `start … stop` of a storage in order: in pieces if it can be computed in pieces."""
    computation: Computation = storage.where
    if _is_small(computation):
        yield from row_major(_whole(computation, verify), start, stop)
        return
    size = computation.spec.dtype.itemsize
    first, last = start // size, -(-stop // size)
    at = first * size
    for piece in _elementwise_pieces(computation, first, last, verify):
        yield piece[max(start - at, 0) : stop - at]
        at += len(piece)


def _is_small(computation: Computation) -> bool:
    """Whether a tensor is computed at once: its function needs whole inputs, or they fit in a piece."""
    return not computation.elementwise or computation.spec.numel <= _piece(computation)


def _piece(computation: Computation) -> int:
    """Return the number of elements in a piece; all inputs of a piece together have the size of a band."""
    widest = max(leaf.spec.dtype.itemsize for leaf in computation.inputs)
    return max(BAND // (widest * len(computation.inputs)), _SMALLEST_PIECE)


def _whole(computation: Computation, verify: bool) -> np.ndarray[Any, Any]:
    """Return the result, which need not be contiguous."""
    import numpy as np

    from ..tensors._numpy import read_array

    function, inputs, spec, *_ = computation
    arrays = [read_array(leaf, verify=verify) for leaf in inputs]
    result = np.asarray(function(*arrays), dtype=spec.dtype.numpy)
    if result.size != spec.numel:
        raise ValueError(f"a computed tensor has shape {result.shape}, but {spec.shape} was expected")
    return result


def _elementwise_pieces(computation: Computation, first: int, last: int, verify: bool) -> Iterator[memoryview]:
    """Yield the bytes of elements `first … last`, computed in pieces while the inputs are streamed."""
    import numpy as np

    from ..tensors._numpy import bytes_of

    function, inputs, spec, *_ = computation
    step = _piece(computation)
    counts = [min(step, last - at) for at in range(first, last, step)]
    blocks = [_blocks(leaf, first, counts, verify) for leaf in inputs]
    for count, *raw in zip(counts, *blocks, strict=True):
        arrays = [np.frombuffer(each, leaf.spec.dtype.numpy) for each, leaf in zip(raw, inputs)]
        result = np.asarray(function(*arrays), dtype=spec.dtype.numpy, order="C")
        if result.shape != (count,):
            raise ValueError(f"a piece of a computed tensor has shape {result.shape}, but {(count,)} was expected")
        yield bytes_of(result)


def _blocks(leaf: Leaf, first: int, counts: Sequence[int], verify: bool) -> Iterator[memoryview]:
    """Yield the bytes of consecutive elements from `first`: `counts[0]`, then `counts[1]` …"""
    size = leaf.spec.dtype.itemsize
    found = stream_elements(leaf, first * size, (first + sum(counts)) * size, verify, max(counts) * size)
    return regrouped(found, [count * size for count in counts])


def _same(array: Any) -> Any:
    return array


# Enough elements that the calls of NumPy's functions do not take longer than their loops.
_SMALLEST_PIECE = 1 << 14
COMPUTED = _Computed()
