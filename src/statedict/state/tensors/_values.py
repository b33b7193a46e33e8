"""Values of a state besides strided tensors and plain Python values.

A `Compound` is a tensor that consists of several leaves (sparse, quantised, nested). An `Opaque` is a placeholder for an
object of an unknown class: the name of the class and its arguments, which can be printed, but are never run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import printable
from ._dtype import DType
from ._leaf import PLAIN, Leaf, Traits


class Compound:
    """A tensor that consists of several leaves.

    Attributes:
        layout: `"sparse_coo"`, `"sparse_csr"`, `"sparse_csc"`, `"sparse_bsr"`, `"sparse_bsc"`, `"quantized"`,
            `"nested"` or `"meta"` (on PyTorch's meta device: it has neither elements nor parts).
        dtype: the dtype of the tensor.
        shape: the shape of the tensor.
        parts: its leaves by role: `indices`, `values` (coo); `compressed_indices`, `plain_indices`, `values` (csr, csc,
            bsr, bsc); `values` and, per channel, `scales`, `zero_points` (quantized); `values`, `sizes`, `strides`,
            `offsets` (nested).
        facts: plain values: `coalesced` (coo); `scheme`, `scale`, `zero_point`, `axis` (quantized);
            `strides` (meta).
    """

    __slots__ = ("dtype", "facts", "layout", "parts", "shape", "traits")

    def __init__(
        self,
        layout: str,
        dtype: DType,
        shape: tuple[int, ...],
        parts: Mapping[str, Leaf],
        facts: Mapping[str, object] | None = None,
        traits: Traits = PLAIN,
    ) -> None:
        self.layout = layout
        self.dtype = dtype
        self.shape = shape
        self.parts = dict(parts)
        self.facts = dict(facts or {})
        self.traits = traits

    @property
    def nbytes(self) -> int:
        return sum(part.spec.nbytes for part in self.parts.values())

    def __repr__(self) -> str:
        return f"Compound({self.layout}, {self.dtype}, {list(self.shape)}, parts={list(self.parts)})"


class Opaque:
    """An object of an unknown class, as inert data: nothing was imported or called.

    Attributes:
        module, name: the class or function that the file names.
        args, kwargs: its arguments; None if the file only refers to the class or function.
        new: whether pickle would create it by `__new__` alone (NEWOBJ), not by a call.
        state: the argument of its `__setstate__`, or its `__dict__`; None if there is none.
        items: list items or key-value pairs to append after it was built.
    """

    __slots__ = ("args", "items", "kwargs", "module", "name", "new", "state")

    def __init__(
        self,
        module: str,
        name: str,
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        new: bool = False,
    ) -> None:
        self.module = module
        self.name = name
        self.args = args
        self.kwargs = dict(kwargs) if kwargs else {}
        self.new = new
        self.state: Any = None
        self.items: list[Any] = []

    @property
    def path(self) -> str:
        """`module.name`."""
        return f"{self.module}.{self.name}"

    def attributes(self) -> dict[str, Any]:
        """Return the instance's `__dict__` in the file; empty if the state is something else."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2 and all(isinstance(s, dict) or s is None for s in state):
            return {**(state[0] or {}), **(state[1] or {})}
        return dict(state) if isinstance(state, dict) else {}

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self!r} is inert data and cannot be iterated; look at .args, .state and .items")

    def __repr__(self) -> str:
        shown = "" if self.args is None else "(…)" if self.args or self.kwargs or self.state or self.items else "()"
        return f"<opaque {printable(self.path)}{shown}>"
