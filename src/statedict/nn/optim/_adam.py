"""Adam: Kingma and Ba, 2014; AdamW: Loshchilov and Hutter, 2017; with amsgrad: Reddi et al., 2018."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import numpy as np

from .. import _arrays
from .._parameter import Parameter
from ._optimizer import Group, Optimizer, State, zeros_like


class Adam(Optimizer):
    """p ← p - lr·m/(√v + eps): m and v are bias-corrected moving averages of the gradient and its square.

    Args:
        params: Parameters, pairs of name and Parameter, or groups: dicts of "params" and settings.
        lr: the learning rate.
        betas: the decay factors of the two averages.
        eps: added to the square root.
        weight_decay: this fraction of the parameter is added to its gradient; with `decoupled_weight_decay`, lr times this
            fraction is subtracted from the parameter instead.
        amsgrad: divide by the largest v so far.
        maximize: maximize the objective instead of minimizing it.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = nn.optim.Adam(model.parameters(), lr=0.1)
    >>> optimizer.step(grads=[np.ones((1, 2), np.float32), np.ones(1, np.float32)])
    >>> sorted(optimizer.state_dict()["state"][0])
    ['exp_avg', 'exp_avg_sq', 'step']
    """

    needed = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        # foreach, capturable, differentiable and fused select PyTorch's implementations. They are kept for PyTorch's files
        # and have no effect here.
        settings = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, settings)

    def _check(self, settings: Mapping[str, Any]) -> None:
        super()._check(settings)
        if settings["eps"] < 0:
            raise ValueError(f"Invalid epsilon value: {settings['eps']}")
        for i, beta in enumerate(settings["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")

    def _update(self, group: Group, parameter: Parameter, grad: Any, state: State) -> None:
        xp = _arrays.namespace(parameter.data)
        if not state:
            state["step"] = _arrays.asarray(parameter.data, np.zeros((), np.float32))
            state["exp_avg"], state["exp_avg_sq"] = zeros_like(parameter), zeros_like(parameter)
        if group["amsgrad"]:
            state.setdefault("max_exp_avg_sq", zeros_like(parameter))
        state["step"] += 1
        lr, decay, (beta1, beta2) = group["lr"], group["weight_decay"], group["betas"]
        if decay and group["decoupled_weight_decay"]:
            parameter *= 1 - lr * decay
        elif decay:
            grad = grad + parameter.data * decay
        state["exp_avg"] += (grad - state["exp_avg"]) * (1 - beta1)
        state["exp_avg_sq"] *= beta2
        state["exp_avg_sq"] += grad * grad * (1 - beta2)
        square = state["exp_avg_sq"]
        if group["amsgrad"]:
            _set(state, "max_exp_avg_sq", xp.maximum(state["max_exp_avg_sq"], square))
            square = state["max_exp_avg_sq"]
        steps = float(state["step"])
        root = xp.sqrt(square) / sqrt(1 - beta2**steps) + group["eps"]
        # In place if the library supports it, so that an existing state dict is updated too.
        parameter -= state["exp_avg"] / root * (lr / (1 - beta1**steps))


class AdamW(Adam):
    """Adam with decoupled weight decay.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = nn.optim.AdamW(model.parameters(), lr=0.1)
    >>> optimizer.step(grads=[np.ones((1, 2), np.float32), np.ones(1, np.float32)])
    >>> sorted(optimizer.state_dict()["state"][0])
    ['exp_avg', 'exp_avg_sq', 'step']
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )


def _set(state: State, name: str, value: Any) -> None:
    if _arrays.is_writable(state[name]):
        _arrays.put(state[name], value)
    else:
        state[name] = value
