"""Leaves that are computed from other leaves when they are read: casts, slices, concatenations, averages.

An executed plan is a StateDict of such leaves. They are read when the state is saved or loaded, one tensor at a time, so the
conversion of a file needs only the memory of its largest tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._leaf import PLAIN, Leaf, Read, Spec, Storage, Traits, check_bounds

if TYPE_CHECKING:
    import numpy as np

Function = Callable[..., "np.ndarray[Any, Any]"]


class _Computed:
    """The Source of computed storages: `storage.where` is (function, inputs, spec)."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            into[:] = self._bytes(storage, verify)[start : start + len(into)]

    def verify(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            _, inputs, _ = storage.where
            for leaf in inputs:
                leaf.storage.source.verify([leaf.storage])

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return self._bytes(storage, verify=True)

    @staticmethod
    def _bytes(storage: Storage, verify: bool) -> memoryview:
        import numpy as np

        from ._numpy import bytes_of, read_array

        function, inputs, spec = storage.where
        inputs = [read_array(leaf, verify=verify) for leaf in inputs]
        # Not `ascontiguousarray`, which returns one dimension for a scalar.
        result = np.asarray(function(*inputs), dtype=spec.dtype.numpy, order="C")
        if result.shape != spec.shape:
            raise ValueError(f"a computed tensor has shape {result.shape}, but {spec.shape} was expected")
        return bytes_of(result)


def computed(spec: Spec, inputs: Sequence[Leaf], function: Function, traits: Traits = PLAIN) -> Leaf:
    """Return a leaf with `spec` (dense) whose elements are `function(*arrays of inputs)`, computed at each read.

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
