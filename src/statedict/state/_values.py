"""What a state can hold besides strided tensors and plain Python values.

`Compound` tensors (sparse, quantised, nested) are a recipe over leaves; `Opaque` is what is left of a value whose class
is not known here: its name and what it was built from, printable, never run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import printable
from ._dtype import DType
from ._leaf import PLAIN, Leaf, Traits


class Compound:
    """A tensor made of several leaves.

    Attributes:
        layout: `"sparse_coo"`, `"sparse_csr"`, `"sparse_csc"`, `"sparse_bsr"`, `"sparse_bsc"`, `"quantized"`,
            `"nested"` or `"meta"` (a tensor of PyTorch's meta device: it never had elements, and has no parts).
        dtype: the element type of the whole.
        shape: the shape of the whole.
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
    """A value whose class is not known here, as inert data: nothing of it was imported or called.

    Attributes:
        module, name: the class or function that the file names.
        args, kwargs: what it would have been called with; None where it is a mere reference to the class or function.
        new: it would have been made by the class's `__new__` alone (pickle's NEWOBJ), not by a call.
        state: what its `__setstate__` would have been given, or its `__dict__`; None where there was none.
        items: list items or key-value pairs appended to it after it was built.
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
        """The instance's `__dict__` as far as the file tells it; empty where the state is something else."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2 and all(isinstance(s, dict) or s is None for s in state):
            return {**(state[0] or {}), **(state[1] or {})}
        return dict(state) if isinstance(state, dict) else {}

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self!r} is inert data and cannot be iterated; look at .args, .state and .items")

    def __repr__(self) -> str:
        shown = "" if self.args is None else "(…)" if self.args or self.kwargs or self.state or self.items else "()"
        return f"<opaque {printable(self.path)}{shown}>"
