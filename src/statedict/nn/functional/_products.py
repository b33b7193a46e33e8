"""The matrix products of recurrent layers: that of the inputs, for many steps at once, and that of the state, at each step.

Theory of operation: sequences are columns, and the product of (gates · hidden, hidden) weights with (hidden, sequences)
states is nearly all that a step costs. OpenBLAS packs the weights anew for each product with a matrix, at half its price
for few columns, but not for one with a vector, nor (where it has AVX-512 kernels) for one of up to 100³ multiplications.
So it is called in the way that packs least. For weights of 1024×256, in µs:

| sequences           | 2      | 8, AVX2, 1 and 2 threads | 8, AVX-512, 1 and 2 threads |
|---------------------|--------|--------------------------|-----------------------------|
| weights · columns   | 45..58 | 58, 35                   | 54, 33                      |
| gate by gate        | 46..58 | 58, 40                   | 26, 24                      |
| vector by vector    | 26..28 | 104, 104                 | 104, 104                    |
| rows · weights      | 62..75 | 70, 50                   | 128, 80                     |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np

from .._arrays import Array, Namespace, unwrap

# Up to so many sequences each is a vector by itself, and lies together in memory.
FEW = 3
# From so many on gate by gate is no slower anywhere: fewer would lose the second thread of AVX2 kernels.
SEVERAL = 8
# Columns of inputs in one product: 1 MB of gates, 1024 high. 160 steps of 8 sequences at once take 1.07 of the time.
COLUMNS = 256
# Multiplications in a product that OpenBLAS does without packing.
SMALL = 100**3


class Weights(NamedTuple):
    """One layer's weights in one direction: (gates · hidden, input), (gates · hidden, hidden or projection) and biases."""

    ih: Any
    hh: Any
    b_ih: Any = None
    b_hh: Any = None
    hr: Any = None


def arrays(weights: Weights) -> tuple[Array, Array, Array | None, Array | None]:
    """ih, hh, the sum of the biases, hr."""
    _, ih, hh, b_ih, b_hh, hr = unwrap(*weights)
    return ih, hh, None if b_ih is None else b_ih + b_hh, hr


def order(count: int) -> Literal["F", "C"]:
    """How NumPy lays (width, `count` sequences) out so that products with them are quickest."""
    return "F" if count <= FEW else "C"


def of_inputs(
    xp: Namespace, ih: Array, bias: Array | None, data: Array, batch_sizes: Sequence[int], *, reverse: bool
) -> Iterator[Array]:
    """What the inputs of each step give to its gates: ih · data + bias, (gates · hidden, sequences), one after the other.

    NumPy's have to be used before the next is taken: all lie in the same memory.
    """
    if xp is np:
        yield from _in_parts(ih, bias, data, batch_sizes, reverse=reverse)
        return
    gates = ih @ data if bias is None else ih @ data + bias[:, None]
    steps = list(zip(batch_sizes, np.cumsum(batch_sizes).tolist()))
    for count, end in reversed(steps) if reverse else steps:
        yield gates[:, end - count : end]


def _in_parts(
    ih: Array, bias: Array | None, data: Array, batch_sizes: Sequence[int], *, reverse: bool
) -> Iterator[Array]:
    """`of_inputs` for NumPy, by products that stay in the cache and whose memory serves all of them."""
    parts, rows = _parts(batch_sizes), ih.shape[0]
    size = rows * max(count * steps for _, count, steps in parts)
    product, together = (np.empty(size, np.result_type(ih, data)) for _ in range(2))
    for start, count, steps in reversed(parts) if reverse else parts:
        columns = data[:, start : start + count * steps]
        size = rows * columns.shape[1]
        if count <= FEW:
            gates = np.matmul(columns.T, ih.T, out=product[:size].reshape(-1, rows))
            if bias is not None:
                gates += bias
            each = gates.reshape(steps, count, rows).transpose(0, 2, 1)
        else:
            gates = np.matmul(ih, columns, out=product[:size].reshape(rows, -1))
            if bias is not None:
                gates += bias[:, None]
            # Each step's columns together: to add 1024 runs of 8 numbers takes 5 to 9 µs, then 1. The copy takes 2,
            # because it takes a run as one element.
            run = np.dtype((np.void, count * gates.itemsize))
            np.copyto(together[:size].view(run).reshape(steps, rows), gates.view(run).T)
            each = together[:size].reshape(steps, rows, count)
        yield from each[::-1] if reverse else each


def _parts(batch_sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first column, sequences, steps) of steps with as many sequences each, up to COLUMNS together."""
    parts, start = [], 0
    for count, equal in groupby(batch_sizes):
        left, most = len(list(equal)), max(1, COLUMNS // max(1, count))
        while left:
            steps = min(left, most)
            parts.append((start, count, steps))
            start, left = start + count * steps, left - steps
    return parts


def of_state(xp: Namespace, hh: Array, gates: int = 1) -> Callable[[Array], Array]:
    """h → hh · h, where hh is that of `gates` gates."""
    if xp is not np:
        return lambda h: hh @ h

    def product(h: Array) -> Array:
        if 1 < h.shape[1] <= FEW:
            return (hh @ h.T[:, :, None])[..., 0].T
        if _is_parted(hh, h, gates):
            return (_parted(hh, gates) @ h).reshape(-1, h.shape[1])
        return hh @ h

    return product


def into(hh: Array, h: Array, out: Array, gates: int) -> Callable[[], Any]:
    """What writes hh · h into `out`, each time it is called, for NumPy; `out` is laid out as `order` says."""
    if h.shape[1] == 1:
        # 0.7 µs less than matmul.
        return partial(np.dot, hh, h[:, 0], out[:, 0])
    if h.shape[1] <= FEW:
        return partial(np.matmul, hh, h.T[:, :, None], out.T[:, :, None])
    if _is_parted(hh, h, gates):
        return partial(np.matmul, _parted(hh, gates), h, _parted(out, gates))
    return partial(np.matmul, hh, h, out)


def _is_parted(hh: Array, h: Array, gates: int) -> bool:
    count, size = int(h.shape[1]), int(hh.size)
    return count >= SEVERAL and size // gates * count <= SMALL < size * count


def _parted(rows: Array, gates: int) -> Array:
    return rows.reshape(gates, rows.shape[0] // gates, rows.shape[1])
