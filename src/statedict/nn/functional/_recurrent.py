"""Recurrent layers over sequences of any lengths: LSTM, GRU and plain RNN.

Theory of operation: steps are columns of one packed array: the first steps of all sequences, then all second steps, and so
on. Sequences are sorted by length, so those that are still running are the first columns of each step. The same loop
handles padded and packed input, and both directions: backwards, sequences join when their last steps are reached.

Everything that does not depend on the previous step is one matrix product for many steps. Within a step, the product with
the state is the main cost (`_products.py`), so the rest uses few operations: all four gates of an LSTM use one tanh, because
sigmoid(x) = tanh(x/2)/2 + 1/2. With NumPy the steps of an LSTM reuse memory (`_lstm.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array, Namespace, full, unwrap
from ._dropout import dropout
from ._lstm import lstm
from ._products import Weights, arrays, of_inputs, of_state

State = tuple[Array, ...]


class Cell(NamedTuple):
    """The computation of a layer: `ih` and `bias` for all inputs at once, then `step(gates, state)` for each step.

    Gates are (gates · hidden, sequences), states (hidden, sequences).
    """

    ih: Array
    bias: Array | None
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
        batch_sizes: the number of rows of each step, never increasing.
        hidden: the initial states, each (layers · directions, sequences, width): h, and c for an LSTM.
        weights: for each layer, the weights of each direction.
        dropout_p: the dropout probability between layers.

    Returns:
        (all steps, directions · width), and the last states, with the shapes of `hidden`.
    """
    xp, data, *hidden = unwrap(data, *hidden)
    columns = data.T
    last: list[State] = []
    for layer, directions in enumerate(weights):
        outputs = []
        for direction, one in enumerate(directions):
            start = tuple(h[layer * len(directions) + direction, ...].T for h in hidden)
            if xp is np and mode == "LSTM":
                output, state = lstm(one, columns, batch_sizes, start, reverse=direction == 1)
            else:
                output, state = run(CELLS[mode](xp, one), xp, columns, batch_sizes, start, reverse=direction == 1)
            outputs.append(output)
            last.append(state)
        columns = outputs[0] if len(outputs) == 1 else xp.concat(outputs, axis=0)
        if layer + 1 < len(weights):
            columns = dropout(columns, dropout_p, training=dropout_p > 0)
    return columns.T, tuple(xp.stack([part.T for part in states], axis=0) for states in zip(*last))


def run(
    cell: Cell, xp: Namespace, data: Array, batch_sizes: Sequence[int], state: State, *, reverse: bool
) -> tuple[Array, State]:
    """Run one layer in one direction; return its output for each column of `data`, and its last state."""
    outputs = []
    for gates in of_inputs(xp, cell.ih, cell.bias, data, batch_sizes, reverse=reverse):
        count = gates.shape[1]
        if count == state[0].shape[1]:
            state = cell.step(gates, state)
            outputs.append(state[0])
        else:
            moved = cell.step(gates, tuple(part[:, :count] for part in state))
            state = tuple(xp.concat([new, part[:, count:]], axis=1) for new, part in zip(moved, state))
            outputs.append(moved[0])
    return xp.concat(outputs[::-1] if reverse else outputs, axis=1), state


def lstm_cell(xp: Namespace, weights: Weights) -> Cell:
    """Gates i, f, g, o; state (h, c): c = f·c + i·g, h = o·tanh(c), projected if there is a projection."""
    ih, hh, bias, hr = arrays(weights)
    width = hh.shape[0] // 4
    i, f, g, o = ((slice(k * width, (k + 1) * width), ...) for k in range(4))
    # Halve all gates except g, so that one tanh computes all of them. Halving the weights once instead would copy them,
    # which costs more than 160 steps of one sequence save.
    halves = xp.concat([full(hh, (2 * width, 1), 0.5), full(hh, (width, 1), 1), full(hh, (width, 1), 0.5)], axis=0)
    recur = of_state(xp, hh, 4)

    def step(gates: Array, state: State) -> State:
        h, c = state
        gates = gates + recur(h)
        gates *= halves
        activated = xp.tanh(gates)
        opened = activated * 0.5 + 0.5
        c = opened[f] * c + opened[i] * activated[g]
        h = opened[o] * xp.tanh(c)
        return h if hr is None else hr @ h, c

    return Cell(ih, bias, step)


def gru_cell(xp: Namespace, weights: Weights) -> Cell:
    """Gates r, z, n; state (h,): n = tanh(… + r·(…·h)), h = (1 - z)·n + z·h."""
    _, ih, hh, b_ih, b_hh = unwrap(weights.ih, weights.hh, weights.b_ih, weights.b_hh)
    width = hh.shape[0] // 3
    recur, own_bias = of_state(xp, hh, 3), None if b_hh is None else b_hh[:, None]

    r, z, n = ((slice(k * width, (k + 1) * width), ...) for k in range(3))
    sigmoids = (slice(0, 2 * width), ...)

    def step(gates: Array, state: State) -> State:
        (h,) = state
        own = recur(h) if own_bias is None else recur(h) + own_bias
        opened = xp.tanh((gates[sigmoids] + own[sigmoids]) * 0.5) * 0.5 + 0.5
        new = xp.tanh(gates[n] + opened[r] * own[n])
        return (new + opened[z] * (h - new),)

    return Cell(ih, b_ih, step)


def tanh_cell(xp: Namespace, weights: Weights) -> Cell:
    """State (h,): h = tanh(input + …·h)."""
    ih, hh, bias, _ = arrays(weights)
    recur = of_state(xp, hh)
    return Cell(ih, bias, lambda gates, state: (xp.tanh(gates + recur(state[0])),))


def relu_cell(xp: Namespace, weights: Weights) -> Cell:
    """State (h,): h = max(input + …·h, 0)."""
    ih, hh, bias, _ = arrays(weights)
    recur = of_state(xp, hh)
    return Cell(ih, bias, lambda gates, state: (xp.clip(gates + recur(state[0]), 0, None),))


CELLS: dict[str, Callable[[Namespace, Weights], Cell]] = {
    "LSTM": lstm_cell,
    "GRU": gru_cell,
    "RNN_TANH": tanh_cell,
    "RNN_RELU": relu_cell,
}
