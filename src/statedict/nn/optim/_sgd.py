"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._parameter import Parameter
from ._optimizer import Group, Optimizer, State


class SGD(Optimizer):
    """p ← p - lr·d, where d is the gradient, or with momentum the decaying sum of gradients.

    Args:
        params: Parameters, pairs of name and Parameter, or groups: dicts of "params" and settings.
        lr: the step's length.
        momentum: how much of the sum stays at each step.
        dampening: how much of a new gradient does not come into the sum.
        weight_decay: this much of the parameter is added to its gradient.
        nesterov: step along the gradient plus the sum that the next step would have.
        maximize: go up instead of down.

    >>> import numpy as np
    >>> from statedict import nn
    >>> weight = nn.Parameter(np.ones(1))
    >>> optimizer = nn.optim.SGD([weight], lr=0.5, momentum=0.9)
    >>> weight.grad = np.ones(1)
    >>> optimizer.step()
    >>> weight.data.tolist(), list(optimizer.state_dict()["state"][0])
    ([0.5], ['momentum_buffer'])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        # The last three choose between PyTorch's implementations: they are kept for its files, and say nothing here.
        settings = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, settings)

    def _check(self, settings: Mapping[str, Any]) -> None:
        super()._check(settings)
        if settings["momentum"] < 0:
            raise ValueError(f"Invalid momentum value: {settings['momentum']}")
        if settings["nesterov"] and (settings["momentum"] <= 0 or settings["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def _update(self, group: Group, parameter: Parameter, grad: Any, state: State) -> None:
        if group["weight_decay"]:
            grad = grad + parameter.data * group["weight_decay"]
        if group["momentum"]:
            total = state.get("momentum_buffer")
            if total is None:
                total = grad * 1
            else:
                total *= group["momentum"]
                total += grad * (1 - group["dampening"])
            state["momentum_buffer"] = total
            grad = grad + total * group["momentum"] if group["nesterov"] else total
        # In place where the library can: a state dict that was taken before follows.
        parameter -= grad * group["lr"]
