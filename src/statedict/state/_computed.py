"""Leaves that are computed from other leaves when they are read: casts, slices, concatenations, averages.

An executed plan is a StateDict of such leaves. They are read when the state is saved or loaded, one tensor at a time, so the
conversion of a file needs only the memory of its largest tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from ._boxes import Box, box_shown, whole_box
from ._leaf import PLAIN, Leaf, Read, Spec, Storage, Traits, check_bounds
from ._origins import Origin, origins
from ._parts import Parts
from ._region import arranged

if TYPE_CHECKING:
    import numpy as np

Function = Callable[..., "np.ndarray[Any, Any]"]
Within = Callable[[Box], Leaf]


class Computation(NamedTuple):
    """The value of `Storage.where` here; the arguments of `computed`."""

    function: Function
    inputs: tuple[Leaf, ...]
    spec: Spec
    within: Within | None


class _Computed:
    """The Source of computed storages."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            into[:] = self._bytes(storage, verify)[start : start + len(into)]

    def verify(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            computation: Computation = storage.where
            for leaf in computation.inputs:
                leaf.storage.source.verify([leaf.storage])

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return self._bytes(storage, verify=True)

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

    @staticmethod
    def _bytes(storage: Storage, verify: bool) -> memoryview:
        import numpy as np

        from ._numpy import bytes_of, read_array

        function, inputs, spec, _ = storage.where
        inputs = [read_array(leaf, verify=verify) for leaf in inputs]
        # Not `ascontiguousarray`, which returns one dimension for a scalar.
        result = np.asarray(function(*inputs), dtype=spec.dtype.numpy, order="C")
        if result.shape != spec.shape:
            raise ValueError(f"a computed tensor has shape {result.shape}, but {spec.shape} was expected")
        return bytes_of(result)


def computed(
    spec: Spec, inputs: Sequence[Leaf], function: Function, traits: Traits = PLAIN, *, within: Within | None = None
) -> Leaf:
    """Return a leaf with `spec` (dense) whose elements are `function(*arrays of inputs)`, computed at each read.

    `within(box)` returns the leaf of the result's elements in a box, made from no more of the inputs than that needs.
    Without it, a part of the result is cut out of the whole.

    >>> import numpy as np
    >>> from statedict.state import leaf_of, read_array
    >>> a = leaf_of(np.array([1.0, 2.0]))
    >>> read_array(computed(a.spec.dense(), [a], lambda x: x * 2))
    array([2., 4.])
    """
    dense = spec.dense()
    where = Computation(function, tuple(inputs), dense, within)
    return Leaf(dense, Storage(COMPUTED, ("computed", id(where)), dense.nbytes, where), traits)


def _same(array: Any) -> Any:
    return array


COMPUTED = _Computed()
