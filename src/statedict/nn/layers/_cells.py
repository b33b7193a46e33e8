"""One step of a recurrent layer: RNNCell, LSTMCell, GRUCell."""

from __future__ import annotations

from math import sqrt
from typing import Any

from .. import init
from .._arrays import Array, full, unwrap
from .._module import Module
from ..functional._products import Weights
from ..functional._recurrent import CELLS, run
from ._new import parameter


class RNNCellBase(Module):
    """weight_ih (chunks · hidden_size, input_size), weight_hh (chunks · hidden_size, hidden_size), bias_ih, bias_hh."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = parameter((rows, input_size), device, dtype)
        self.weight_hh = parameter((rows, hidden_size), device, dtype)
        self.register_parameter("bias_ih", parameter(rows, device, dtype) if bias else None)
        self.register_parameter("bias_hh", parameter(rows, device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the parameters to new initial values."""
        bound = 1.0 / sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(self, mode: str, input: Any, state: tuple[Any, ...] | None) -> tuple[Array, ...]:
        xp, x = unwrap(input)
        if x.ndim not in (1, 2):
            raise ValueError(f"{self._get_name()}: Expected input to be 1D or 2D, got {x.ndim}D instead")
        alone = x.ndim == 1
        x = x[None, :] if alone else x
        if state is None:
            state = tuple(full(x, (x.shape[0], self.hidden_size), 0) for _ in range(2 if mode == "LSTM" else 1))
        else:
            _, *state = unwrap(*state)  # type: ignore[assignment]
            state = tuple(part[None, :] if alone else part for part in state or ())
        weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        columns = tuple(part.T for part in state)
        _, columns = run(CELLS[mode](xp, weights), xp, x.T, [x.shape[0]], columns, reverse=False)
        return tuple(part.T[0, :] if alone else part.T for part in columns)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        parts += [f"bias={self.bias}"] * (self.bias is not True)
        nonlinearity = self.__dict__.get("nonlinearity", "tanh")
        parts += [f"nonlinearity={nonlinearity}"] * (nonlinearity != "tanh")
        return ", ".join(parts)


class RNNCell(RNNCellBase):
    """h = tanh(W·x + U·h + b), or max(…, 0) with `nonlinearity="relu"`; (samples, input_size) to (samples, hidden_size).

    >>> nn.RNNCell(4, 8)(np.zeros((2, 4), np.float32)).shape
    (2, 8)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Any:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return self._step(f"RNN_{self.nonlinearity.upper()}", input, None if hx is None else (hx,))[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM: input and (h, c) to (h, c).

    >>> h, c = nn.LSTMCell(4, 8)(np.zeros((2, 4), np.float32))
    >>> h.shape, c.shape
    ((2, 8), (2, 8))
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Any, hx: tuple[Any, Any] | None = None) -> tuple[Any, ...]:
        return self._step("LSTM", input, hx)


class GRUCell(RNNCellBase):
    """One step of a GRU: input and h to h.

    >>> nn.GRUCell(4, 8)(np.zeros((2, 4), np.float32)).shape
    (2, 8)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        return self._step("GRU", input, None if hx is None else (hx,))[0]
