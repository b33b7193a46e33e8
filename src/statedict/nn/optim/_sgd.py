"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._parameter import Parameter
from ._optimizer import Group, Optimizer, State


class SGD(Optimizer):
    """p ← p - lr·d, where d is the gradient, or with momentum a decaying sum of gradients.

    Args:
        params: Parameters, pairs of name and Parameter, or groups: dicts of "params" and settings.
        lr: the learning rate.
        momentum: the decay factor of the sum.
        dampening: the fraction of a new gradient that is not added to the sum.
        weight_decay: this fraction of the parameter is added to its gradient.
        nesterov: use Nesterov momentum.
        maximize: maximize the objective instead of minimizing it.

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
        # The last three select PyTorch's implementations. They are kept for its files and have no effect here.
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
        # In place if the library supports it, so that an existing state dict is updated too.
        parameter -= grad * group["lr"]
