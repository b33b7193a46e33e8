"""Leaves that are computed from other leaves when they are read: casts, slices, concatenations, averages.

A plan is a StateDict of such leaves; nothing is read until it is saved or loaded, and then one tensor at a time, so a
conversion of a file larger than memory needs the memory of its largest tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._leaf import PLAIN, Leaf, Read, Storage, Traits
from ._spec import Spec

if TYPE_CHECKING:
    import numpy as np

Function = Callable[..., "np.ndarray[Any, Any]"]


class _Computed:
    """The Source of computed storages: `storage.where` is (function, inputs, spec)."""

    def read_into(self, reads: Sequence[Read]) -> None:
        for storage, start, into in reads:
            into[:] = self._bytes(storage)[start : start + len(into)]

    def verify(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            _, inputs, _ = storage.where
            for leaf in inputs:
                leaf.storage.source.verify([leaf.storage])

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return self._bytes(storage)

    @staticmethod
    def _bytes(storage: Storage) -> memoryview:
        import numpy as np

        from ._numpy import bytes_of, read_array

        function, inputs, spec = storage.where
        # Not `ascontiguousarray`, which makes a vector of a number.
        result = np.asarray(function(*(read_array(leaf) for leaf in inputs)), dtype=spec.dtype.numpy, order="C")
        if result.shape != spec.shape:
            raise ValueError(f"a computed tensor has shape {result.shape}, not {spec.shape} as was said")
        return bytes_of(result)


def computed(spec: Spec, inputs: Sequence[Leaf], function: Function, traits: Traits = PLAIN) -> Leaf:
    """A leaf with `spec` (dense) whose elements are `function(*arrays of inputs)`, computed at each read.

    >>> import numpy as np
    >>> from statedict.state import leaf_of, read_array
    >>> a = leaf_of(np.array([1.0, 2.0]))
    >>> read_array(computed(a.spec.dense(), [a], lambda x: x * 2))
    array([2., 4.])
    """
    dense = spec.dense()
    where = (function, tuple(inputs), dense)
    return Leaf(dense, Storage(COMPUTED, ("computed", id(where)), dense.nbytes, where), traits)


COMPUTED = _Computed()
