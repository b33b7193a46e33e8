"""What a converting rule does to tensors, as text and as values.

    transpose [D E]      swap two dimensions (those of a matrix where none are given)     transpose
    permute D E F …      dimensions in this order                                         permute
    split D [sizes]      one tensor into several along D: of these sizes, or equal parts  cat D [sizes]
    unstack D            one tensor into as many as D is long, without D                  stack D
    cat D [sizes]        several into one along D: of these sizes, or of one size         split D [sizes]
    stack D              several of one shape into one, along a new D                     unstack D
    reshape [D E …]      the same elements in row-major order as another shape            (nothing)

The last column undoes the first, exactly; `reshape` does not say which shape there was. Each operation answers on
specs first (`specs`), and its leaves are made with those very specs: the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from statedict.state import Leaf, Spec, computed

from ._joins import Cat, Join, Stack, plain
from ._reshape import Reshape
from ._views import Permute, Split, Transpose, Unstack


class Operation(Protocol):
    """One tensor operation, as a value; its text is its `str`. This is its whole surface."""

    def specs(self, specs: Sequence[Spec], count: int) -> list[Spec]:
        """The specs that come out; `count` is how many a split must make. ValueError where it does not fit."""

    def leaves(self, leaves: Sequence[Leaf], count: int) -> list[Leaf]:
        """The leaves that come out, with just those specs; reads nothing."""


def parse_operation(text: str) -> Operation:
    """The operation that a text such as `"split 0 64 64"` says; ValueError where it says none. `str` goes back."""
    word, *numbers = text.split() or [""]
    try:
        dims = [int(number) for number in numbers]
        return OPERATIONS[word](*dims)
    except (KeyError, ValueError, TypeError):
        usage = "transpose [D E], permute D E …, split D [sizes], unstack D, cat D [sizes], stack D, reshape [sizes]"
        raise ValueError(f"{text!r} is no operation on a tensor; they are: {usage}") from None


def undone(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """The operations that undo these, in the order in which they must come."""
    return tuple(INVERSES[type(operation)](operation) for operation in reversed(operations))


def joins(operation: Operation) -> bool:
    """Whether it makes one tensor of several."""
    return isinstance(operation, Join)


def parts(operation: Operation) -> bool:
    """Whether it makes several tensors of one."""
    return isinstance(operation, (Split, Unstack))


def on_specs(operations: Sequence[Operation], specs: Sequence[Spec], count: int) -> list[Spec]:
    """The specs after all operations in turn; ValueError where one does not fit."""
    for operation in operations:
        specs = operation.specs(specs, count)
    return list(specs)


def on_leaves(operations: Sequence[Operation], leaves: Sequence[Leaf], count: int) -> list[Leaf]:
    """The leaves after all operations in turn, each dense in a storage of its own; reads nothing."""
    for operation in operations:
        leaves = operation.leaves(leaves, count)
    if operations and not joins(operations[-1]):
        # Parts of one tensor must not look tied, nor be saved with the whole storage. Each still reads only its own bytes.
        return [computed(leaf.spec.dense(), [leaf], _same, plain(leaf)) for leaf in leaves]
    return list(leaves)


def _same(array: Any) -> Any:
    return array


def _transpose(*dims: int) -> Transpose:
    if len(dims) not in (0, 2):
        raise TypeError("two dimensions are swapped")
    return Transpose(dims)


OPERATIONS: dict[str, Callable[..., Operation]] = {
    "transpose": _transpose,
    "permute": lambda dim, *dims: Permute((dim, *dims)),
    "split": lambda dim, *sizes: Split(dim, sizes),
    "unstack": lambda dim: Unstack(dim),
    "cat": lambda dim, *sizes: Cat(dim, sizes),
    "stack": lambda dim: Stack(dim),
    "reshape": lambda *sizes: Reshape(sizes),
}

INVERSES: dict[type, Callable[[Any], Operation]] = {
    Transpose: lambda it: it,
    Permute: lambda it: Permute(tuple(it.dims.index(dim) for dim in range(len(it.dims)))),
    Split: lambda it: Cat(it.dim, it.sizes),
    Cat: lambda it: Split(it.dim, it.sizes),
    Unstack: lambda it: Stack(it.dim),
    Stack: lambda it: Unstack(it.dim),
}
