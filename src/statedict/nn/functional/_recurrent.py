"""Recurrent layers over sequences of any lengths: LSTM, GRU and the plain ones.

Theory of operation: steps are rows of one packed array, all sequences' first steps, then all second ones; the sequences
that are still running are the first rows of each step, because they are sorted by length. So one loop serves padded and
packed input, and both directions: backwards, sequences join as their last steps are reached.

What does not depend on the step before is one matrix product for all steps. Within a step, the product with the state is
what costs (480 steps of a 256-wide LSTM: 12 µs each, bound by reading 1 MB of weights), so the rest is kept to few
operations: all four gates of an LSTM go through one tanh, by sigmoid(x) = tanh(x/2)/2 + 1/2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array, Namespace, unwrap
from ._dropout import dropout

State = tuple[Array, ...]


class Weights(NamedTuple):
    """One layer's weights in one direction: (gates · hidden, input), (gates · hidden, hidden or projection) and biases."""

    ih: Any
    hh: Any
    b_ih: Any = None
    b_hh: Any = None
    hr: Any = None


class Cell(NamedTuple):
    """What a layer does: with all inputs at once (rows to rows), then at each step with one state."""

    project: Callable[[Array], Array]
    step: Callable[[Array, State], State]


def recurrent(
    mode: str,
    data: Any,
    batch_sizes: Sequence[int],
    hidden: Sequence[Any],
    weights: Sequence[Sequence[Weights]],
    dropout_p: float = 0.0,
) -> tuple[Array, State]:
    """Run the layers over packed sequences.

    Args:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        data: (all steps, input): the rows of step 0, then of step 1, and so on.
        batch_sizes: how many rows each step has; never growing.
        hidden: the initial states, each (layers · directions, samples, width): h, and c for an LSTM.
        weights: for each layer, the weights of each direction.
        dropout_p: the share of what one layer gives to the next that is dropped.

    Returns:
        (all steps, directions · width) and the last states, shaped as `hidden`.
    """
    xp, data, *hidden = unwrap(data, *hidden)
    last: list[State] = []
    for layer, directions in enumerate(weights):
        outputs = []
        for direction, one in enumerate(directions):
            start = tuple(h[layer * len(directions) + direction] for h in hidden)
            output, state = run(CELLS[mode](xp, one), xp, data, batch_sizes, start, reverse=direction == 1)
            outputs.append(output)
            last.append(state)
        data = outputs[0] if len(outputs) == 1 else xp.concat(outputs, axis=-1)
        if layer + 1 < len(weights):
            data = dropout(data, dropout_p, training=dropout_p > 0)
    return data, tuple(xp.stack(list(states), axis=0) for states in zip(*last))


def run(
    cell: Cell, xp: Namespace, data: Array, batch_sizes: Sequence[int], state: State, *, reverse: bool
) -> tuple[Array, State]:
    """One layer in one direction: what it gives at each row, and its last state."""
    inputs = cell.project(data)
    ends = np.cumsum(batch_sizes).tolist()
    steps = [(end - count, end) for count, end in zip(batch_sizes, ends)]
    outputs = []
    for start, end in reversed(steps) if reverse else steps:
        count = end - start
        if count == state[0].shape[0]:
            state = cell.step(inputs[start:end], state)
        else:
            moved = cell.step(inputs[start:end], tuple(part[:count] for part in state))
            state = tuple(xp.concat([new, part[count:]], axis=0) for new, part in zip(moved, state))
        outputs.append(state[0][:count])
    return xp.concat(outputs[::-1] if reverse else outputs, axis=0), state


def lstm_cell(xp: Namespace, weights: Weights) -> Cell:
    """Gates i, f, g, o; state (h, c): c = f·c + i·g, h = o·tanh(c), projected where there is a projection."""
    ih, hh, bias, hr = _arrays(xp, weights)
    width = hh.shape[0] // 4
    # As i, f, o, g, the first three halved: one slice and one tanh for all.
    ih, hh, bias = (None if part is None else _gates_in_order(xp, part, width) for part in (ih, hh, bias))
    recur = _recurrence(xp, hh)
    up, down = None if hr is None else hr.T, width

    def step(gates: Array, state: State) -> State:
        h, c = state
        activated = xp.tanh(gates + recur(h))
        opened = activated[:, : 3 * down] * 0.5 + 0.5
        c = opened[:, down : 2 * down] * c + opened[:, :down] * activated[:, 3 * down :]
        h = opened[:, 2 * down :] * xp.tanh(c)
        return h if up is None else h @ up, c

    return Cell(lambda data: _affine(data, ih, bias), step)


def gru_cell(xp: Namespace, weights: Weights) -> Cell:
    """Gates r, z, n; state (h,): n = tanh(… + r·(…·h)), h = (1 - z)·n + z·h."""
    _, ih, hh, b_ih, b_hh = unwrap(weights.ih, weights.hh, weights.b_ih, weights.b_hh)
    width = hh.shape[0] // 3
    recur = _recurrence(xp, hh)

    def step(gates: Array, state: State) -> State:
        (h,) = state
        own = recur(h) if b_hh is None else recur(h) + b_hh
        opened = xp.tanh((gates[:, : 2 * width] + own[:, : 2 * width]) * 0.5) * 0.5 + 0.5
        new = xp.tanh(gates[:, 2 * width :] + opened[:, :width] * own[:, 2 * width :])
        return (new + opened[:, width:] * (h - new),)

    return Cell(lambda data: _affine(data, ih, b_ih), step)


def tanh_cell(xp: Namespace, weights: Weights) -> Cell:
    """State (h,): h = tanh(input + …·h)."""
    ih, hh, bias, _ = _arrays(xp, weights)
    recur = _recurrence(xp, hh)
    return Cell(lambda data: _affine(data, ih, bias), lambda gates, state: (xp.tanh(gates + recur(state[0])),))


def relu_cell(xp: Namespace, weights: Weights) -> Cell:
    """State (h,): h = max(input + …·h, 0)."""
    ih, hh, bias, _ = _arrays(xp, weights)
    recur = _recurrence(xp, hh)
    return Cell(lambda data: _affine(data, ih, bias), lambda gates, state: (xp.clip(gates + recur(state[0]), 0, None),))


def _arrays(xp: Namespace, weights: Weights) -> tuple[Array, Array, Array | None, Array | None]:
    """ih, hh, the sum of the biases, hr."""
    _, ih, hh, b_ih, b_hh, hr = unwrap(*weights)
    return ih, hh, None if b_ih is None else b_ih + b_hh, hr


def _gates_in_order(xp: Namespace, part: Array, width: int) -> Array:
    i_f, g, o = part[: 2 * width], part[2 * width : 3 * width], part[3 * width :]
    return xp.concat([i_f * 0.5, o * 0.5, g], axis=0)


def _affine(data: Array, weight: Array, bias: Array | None) -> Array:
    return data @ weight.T if bias is None else data @ weight.T + bias


def _recurrence(xp: Namespace, hh: Array) -> Callable[[Array], Array]:
    """h → h @ hhᵀ, in the way that is quickest for its rows."""
    if xp is not np:
        return lambda h: h @ hh.T
    turned = np.ascontiguousarray(hh.T)

    def product(h: Array) -> Array:
        # OpenBLAS has no good kernel for 2 to 4 rows: they cost less as that many products of one row (1024×256, two
        # rows: 27 µs against 57).
        return (h[:, None, :] @ turned)[:, 0] if 1 < h.shape[0] <= 4 else h @ turned

    return product


CELLS: dict[str, Callable[[Namespace, Weights], Cell]] = {
    "LSTM": lstm_cell,
    "GRU": gru_cell,
    "RNN_TANH": tanh_cell,
    "RNN_RELU": relu_cell,
}
