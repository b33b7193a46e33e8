"""Recurrent layers over whole sequences: RNN, LSTM, GRU."""

from __future__ import annotations

import warnings
from math import sqrt
from typing import Any

import numpy as np

from .. import init
from .._arrays import Array, asarray, full, unwrap
from .._module import Module
from ..functional._products import Weights
from ..functional._recurrent import recurrent
from ..utils.rnn import PackedSequence
from ._new import parameter

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


class RNNBase(Module):
    """The base of RNN, LSTM and GRU.

    For each layer k and direction (suffix "" or "_reverse"): weight_ih_l{k}, (gates · hidden_size, input),
    weight_hh_l{k}, (gates · hidden_size, hidden_size or proj_size), bias_ih_l{k}, bias_hh_l{k}, and with a projection
    weight_hr_l{k}, (proj_size, hidden_size); all are initially uniform within ±1/√hidden_size.

    >>> output, h = nn.RNNBase("GRU", 4, 8)(np.zeros((5, 2, 4), np.float32))
    >>> output.shape, h.shape
    ((5, 2, 8), (1, 2, 8))
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._check_settings(dropout)
        for layer, suffix in self._places():
            for name, shape in self._shapes(layer).items():
                setattr(self, f"{name}_l{layer}{suffix}", parameter(shape, device, dtype))
        self.reset_parameters()

    def _check_settings(self, dropout: Any) -> None:
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        if dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers "
                f"greater than 1, but got dropout={dropout} and num_layers={self.num_layers}",
                stacklevel=4,
            )
        for name, kind in (("bias", bool), ("batch_first", bool), ("input_size", int), ("hidden_size", int)):
            if not isinstance(getattr(self, name), kind):
                found = type(getattr(self, name)).__name__
                raise TypeError(f"{name} should be of type {kind.__name__}, got: {found}")
        for name in ("input_size", "hidden_size", "num_layers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if self.proj_size < 0:
            raise ValueError("proj_size should be a positive integer or zero to disable projections")
        if self.proj_size >= self.hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if self.mode not in _GATES:
            raise ValueError(f"Unrecognized RNN mode: {self.mode}")

    def _places(self) -> list[tuple[int, str]]:
        """Return (layer, suffix) of each set of weights, in order."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        return [(layer, suffix) for layer in range(self.num_layers) for suffix in suffixes]

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of one set of weights, in order."""
        rows, width = _GATES[self.mode] * self.hidden_size, self.proj_size or self.hidden_size
        inputs = width * (2 if self.bidirectional else 1) if layer else self.input_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, width)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes

    def _weights(self) -> list[list[Weights]]:
        every = []
        for layer, suffix in self._places():
            named = {name.partition("_")[2]: name for name in self._shapes(layer) if name.startswith("weight")}
            named |= {f"b_{name.partition('_')[2]}": name for name in self._shapes(layer) if name.startswith("bias")}
            every.append(Weights(**{k: getattr(self, f"{name}_l{layer}{suffix}") for k, name in named.items()}))
        directions = 2 if self.bidirectional else 1
        return [every[i : i + directions] for i in range(0, len(every), directions)]

    @property
    def all_weights(self) -> list[list[Any]]:
        """Return the parameters, one list for each layer and direction."""
        return [[w for w in weights if w is not None] for layer in self._weights() for weights in layer]

    def flatten_parameters(self) -> None:
        """Do nothing; PyTorch's method rearranges the weights for cuDNN."""

    def reset_parameters(self) -> None:
        """Reset the parameters to new initial values."""
        bound = 1.0 / sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Run the sequences through the layers.

        Args:
            input: (steps, sequences, input_size), (steps, input_size), with `batch_first` (sequences, steps,
                input_size), or a PackedSequence.
            hx: the state before the first step: h, for an LSTM (h, c), each (layers · directions, sequences, width), or
                without sequences; None means zeros.

        Returns:
            (output, state): the output of the last layer at each step, (steps, sequences, directions · width) or in the
            form of the input; and the state after the last step, with the shape of `hx`.
        """
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx)
        xp, x = unwrap(input)
        if x.ndim not in (2, 3):
            kind = self._get_name()
            raise ValueError(f"{kind}: Expected input to be 2D or 3D, got {x.ndim}D instead")
        alone = x.ndim == 2
        if alone:
            x, hx = x[:, None, :], None if hx is None else self._each(hx, lambda h: h[:, None, :])
        elif self.batch_first:
            x = xp.permute_dims(x, (1, 0, 2))
        steps, sequences = x.shape[:2]
        self._check_input(x)
        if not steps:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        data, state = self._run(xp.reshape(x, (steps * sequences, x.shape[2])), [sequences] * steps, hx)
        output = xp.reshape(data, (steps, sequences, data.shape[1]))
        if alone:
            return output[:, 0, :], self._each(state, lambda h: h[:, 0, :])
        return xp.permute_dims(output, (1, 0, 2)) if self.batch_first else output, state

    def _run_packed(self, input: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        xp, data = unwrap(input.data)

        def ordered(order: Any) -> Any:
            return lambda h: h if order is None else xp.take(h, asarray(data, order), axis=1)

        self._check_input(data)
        hx = None if hx is None else self._each(hx, ordered(input.sorted_indices))
        output, state = self._run(data, np.asarray(input.batch_sizes).tolist(), hx)
        return input._replace(data=output), self._each(state, ordered(input.unsorted_indices))

    def _run(self, data: Array, batch_sizes: list[int], hx: Any) -> tuple[Array, Any]:
        count = self.num_layers * (2 if self.bidirectional else 1)
        widths = [self.proj_size or self.hidden_size, self.hidden_size][: 2 if self.mode == "LSTM" else 1]
        shapes = [(count, batch_sizes[0], width) for width in widths]
        if hx is None:
            hidden = [full(data, shape, 0) for shape in shapes]
        else:
            _, *hidden = unwrap(*(hx if isinstance(hx, (tuple, list)) else (hx,)))
            for h, shape, word in zip(hidden, shapes, self._words()):
                if tuple(h.shape) != shape:
                    raise RuntimeError(f"Expected {word} size {shape}, got {list(h.shape)}")
        dropout = self.dropout if self.training else 0.0
        output, state = recurrent(self.mode, data, batch_sizes, hidden, self._weights(), dropout)
        return output, state if self.mode == "LSTM" else state[0]

    def _words(self) -> tuple[str, ...]:
        return ("hidden[0]", "hidden[1]") if self.mode == "LSTM" else ("hidden",)

    def _each(self, state: Any, act: Any) -> Any:
        if self.mode == "LSTM":
            _, h, c = unwrap(*state)
            return act(h), act(c)
        return act(unwrap(state)[1])

    def _check_input(self, x: Array) -> None:
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        parts += [f"proj_size={self.proj_size}"] * (self.proj_size != 0)
        parts += [f"num_layers={self.num_layers}"] * (self.num_layers != 1)
        parts += [f"bias={self.bias}"] * (self.bias is not True)
        parts += [f"batch_first={self.batch_first}"] * (self.batch_first is not False)
        parts += [f"dropout={self.dropout}"] * (self.dropout != 0)
        parts += [f"bidirectional={self.bidirectional}"] * (self.bidirectional is not False)
        return ", ".join(parts)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("proj_size", 0)


class RNN(RNNBase):
    """h = tanh(W·x + U·h + b), or max(…, 0) with `nonlinearity="relu"`; arguments as RNNBase without `mode`.

    >>> output, h = nn.RNN(4, 8)(np.zeros((5, 2, 4), np.float32))
    >>> output.shape, h.shape
    ((5, 2, 8), (1, 2, 8))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        if len(args) > 3:
            nonlinearity, args = args[3], args[:3] + args[4:]
        else:
            nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory, with state (h, c); arguments as RNNBase without `mode`.

    >>> output, (h, c) = nn.LSTM(40, 256, num_layers=3, batch_first=True)(np.zeros((2, 160, 40), np.float32))
    >>> output.shape, h.shape
    ((2, 160, 256), (3, 2, 256))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase):
    """Gated recurrent unit; arguments as RNNBase without `mode`.

    >>> output, h = nn.GRU(4, 8)(np.zeros((5, 2, 4), np.float32))
    >>> output.shape, h.shape
    ((5, 2, 8), (1, 2, 8))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)


def _refuse_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
