"""The matrix products of recurrent layers: of the inputs, for many steps at once, and of the state, at each step.

Theory of operation: sequences are columns, and the product of (gates · hidden, hidden) weights with (hidden, sequences)
states is nearly the whole cost of a step. OpenBLAS packs the weights again for each product with a matrix, which is half of
the cost for few columns, but not for a product with a vector, nor (with AVX-512 kernels) for one of up to 100³
multiplications. So the product is split in the way that packs least. For weights of 1024×256, in µs:

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

# Up to this many sequences, each is a separate vector, contiguous in memory.
FEW = 3
# From this many on, gate by gate is never slower; with fewer, AVX2 kernels would not use a second thread.
SEVERAL = 8
# Columns of inputs in one product: 1 MB of gates, 1024 rows. 160 steps of 8 sequences at once take 1.07 of the time.
COLUMNS = 256
# The largest product, in multiplications, that OpenBLAS computes without packing.
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
    """Return the memory layout of (width, `count` sequences) for which products in NumPy are fastest."""
    return "F" if count <= FEW else "C"


def of_inputs(
    xp: Namespace, ih: Array, bias: Array | None, data: Array, batch_sizes: Sequence[int], *, reverse: bool
) -> Iterator[Array]:
    """Yield the inputs' contribution to the gates for each step: ih · data + bias, (gates · hidden, sequences).

    With NumPy, use each before taking the next one: they share memory.
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
    """`of_inputs` for NumPy, with products that fit the cache and share one memory."""
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
            # Make each step's columns contiguous: adding 1024 runs of 8 numbers then takes 1 µs, not 5 to 9. The copy takes
            # 2 µs, because it treats a run as one element.
            run = np.dtype((np.void, count * gates.itemsize))
            np.copyto(together[:size].view(run).reshape(steps, rows), gates.view(run).T)
            each = together[:size].reshape(steps, rows, count)
        yield from each[::-1] if reverse else each


def _parts(batch_sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Yield (first column, sequences, steps) for steps with equal numbers of sequences, up to COLUMNS together."""
    parts, start = [], 0
    for count, equal in groupby(batch_sizes):
        left, most = len(list(equal)), max(1, COLUMNS // max(1, count))
        while left:
            steps = min(left, most)
            parts.append((start, count, steps))
            start, left = start + count * steps, left - steps
    return parts


def of_state(xp: Namespace, hh: Array, gates: int = 1) -> Callable[[Array], Array]:
    """Return the function h → hh · h, for the hh of `gates` gates."""
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
    """Return a function that writes hh · h into `out`, for NumPy; `out` has the layout of `order`."""
    if h.shape[1] == 1:
        # 0.7 µs faster than matmul.
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
