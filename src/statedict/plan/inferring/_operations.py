"""Find the operation of a rule that gives a tensor another shape."""

from __future__ import annotations

from ..operations._specs import Shape
from ._nodes import bare_shape


def operation(shape: Shape, wanted: Shape) -> tuple[str, bool]:
    """Return the text of the operation, empty if the shapes are equal; and whether it is the only possible one.

    >>> operation((3, 4), (4, 3)), operation((4, 3), (4, 3, 1, 1)), operation((1,), ())
    (('transpose', True), ('reshape 4 3 1 1', True), ('', True))
    """
    if shape == wanted or (shape, wanted) == ((1,), ()):
        return "", True
    if len(shape) == 2 and shape[::-1] == wanted:
        return "transpose", True
    text = " ".join(map(str, ("reshape", *wanted)))
    sizes, others = ([size for size in one if size != 1] for one in (shape, wanted))
    if sizes == others:
        return text, True
    if len(shape) == len(wanted) > 2 and bare_shape(shape) == bare_shape(wanted):
        return _permuted(shape, wanted), len(set(wanted)) == len(wanted)
    return text, False


def _permuted(shape: Shape, wanted: Shape) -> str:
    """Return the permutation that gives the wanted shape, with equal dimensions in their order."""
    free = list(range(len(shape)))
    dims = []
    for size in wanted:
        dims.append(next(dim for dim in free if shape[dim] == size))
        free.remove(dims[-1])
    return " ".join(map(str, ("permute", *dims)))
