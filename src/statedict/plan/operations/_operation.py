"""The operations of converting rules, as text and as values.

    transpose [D E]      swap two dimensions (by default those of a matrix)               transpose
    permute D E F …      put the dimensions in this order                                 permute
    split D [sizes]      split along D: into parts of these sizes, or equal parts         cat D [sizes]
    unstack D            split into the slices along D, without D                         stack D
    cat D [sizes]        concatenate along D: parts of these sizes, or of the same size   split D [sizes]
    stack D              stack tensors of the same shape along a new dimension D          unstack D
    squeeze D            remove the dimension D, whose size is 1                          unsqueeze D
    unsqueeze D          insert a dimension D of size 1                                   squeeze D
    interleave D [N]     a0 a1 … b0 b1 … → a0 b0 a1 b1 …, in each N entries along D       deinterleave D [N]
    deinterleave D [N]   a0 b0 a1 b1 … → a0 a1 … b0 b1 …, in each N entries along D       interleave D [N]
    reshape [D E …]      the same elements, in row-major order, in another shape          -

The last column is the exact inverse; `reshape` does not have one, because it loses the original shape. Each operation first
computes specs (`specs`), and its leaves are made with these specs, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from statedict.state import Leaf, Spec, elementwise

from ._interleave import Interleave
from ._joins import Cat, Join, Stack, plain
from ._reshape import Reshape
from ._views import Permute, Split, Squeeze, Transpose, Unsqueeze, Unstack


class Operation(Protocol):
    """One tensor operation, as a value; `str` returns its text. This is its whole surface."""

    def specs(self, specs: Sequence[Spec], count: int) -> list[Spec]:
        """Return the specs of the results; a split makes `count` of them. Raises ValueError if it does not fit."""

    def leaves(self, leaves: Sequence[Leaf], count: int) -> list[Leaf]:
        """Return the leaves of the results, with exactly those specs; reads no tensor."""


def parse_operation(text: str) -> Operation:
    """Parse an operation such as `"split 0 64 64"`; raises ValueError if it is not valid. `str` is the inverse."""
    word, *numbers = text.split() or [""]
    try:
        dims = [int(number) for number in numbers]
        return OPERATIONS[word](*dims)
    except (KeyError, ValueError, TypeError):
        usage = (
            "transpose [D E], permute D E …, split D [sizes], unstack D, cat D [sizes], stack D, squeeze D, unsqueeze D, "
            "interleave D [N], deinterleave D [N], reshape [sizes]"
        )
        raise ValueError(f"{text!r} is not a tensor operation; use one of: {usage}") from None


def undone(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return the operations that undo these, in order of application."""
    return tuple(INVERSES[type(operation)](operation) for operation in reversed(operations))


def joins(operation: Operation) -> bool:
    """Whether an operation joins several tensors into one."""
    return isinstance(operation, Join)


def parts(operation: Operation) -> bool:
    """Whether an operation splits one tensor into several."""
    return isinstance(operation, (Split, Unstack))


def on_specs(operations: Sequence[Operation], specs: Sequence[Spec], count: int) -> list[Spec]:
    """Return the specs after all operations; raises ValueError if one does not fit."""
    for operation in operations:
        specs = operation.specs(specs, count)
    return list(specs)


def on_leaves(operations: Sequence[Operation], leaves: Sequence[Leaf], count: int) -> list[Leaf]:
    """Return the leaves after all operations, each dense in its own storage; reads no tensor."""
    for operation in operations:
        leaves = operation.leaves(leaves, count)
    if operations and not joins(operations[-1]):
        # As views, the parts would look tied and be saved with the whole storage. Each still reads only its own bytes.
        return [elementwise(leaf.spec.dtype, [leaf], _same, plain(leaf)) for leaf in leaves]
    return list(leaves)


def _same(array: Any) -> Any:
    return array


def _transpose(*dims: int) -> Transpose:
    if len(dims) not in (0, 2):
        raise TypeError("transpose needs two dimensions, or none")
    return Transpose(dims)


OPERATIONS: dict[str, Callable[..., Operation]] = {
    "transpose": _transpose,
    "permute": lambda dim, *dims: Permute((dim, *dims)),
    "split": lambda dim, *sizes: Split(dim, sizes),
    "unstack": lambda dim: Unstack(dim),
    "cat": lambda dim, *sizes: Cat(dim, sizes),
    "stack": lambda dim: Stack(dim),
    "squeeze": lambda dim: Squeeze(dim),
    "unsqueeze": lambda dim: Unsqueeze(dim),
    "interleave": lambda dim, group=0: Interleave(dim, group),
    "deinterleave": lambda dim, group=0: Interleave(dim, group, apart=True),
    "reshape": lambda *sizes: Reshape(sizes),
}

INVERSES: dict[type, Callable[[Any], Operation]] = {
    Transpose: lambda it: it,
    Permute: lambda it: Permute(tuple(it.dims.index(dim) for dim in range(len(it.dims)))),
    Split: lambda it: Cat(it.dim, it.sizes),
    Cat: lambda it: Split(it.dim, it.sizes),
    Unstack: lambda it: Stack(it.dim),
    Stack: lambda it: Unstack(it.dim),
    Squeeze: lambda it: Unsqueeze(it.dim),
    Unsqueeze: lambda it: Squeeze(it.dim),
    Interleave: lambda it: Interleave(it.dim, it.group, not it.apart),
}
