"""Optimizer: groups of parameters, the state of each parameter, and PyTorch's state dict of both.

There is no autograd: set gradients as `parameter.grad`, or pass them to `step`.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from .. import _arrays
from .._conversion import clear_grad
from .._parameter import Parameter
from .._registration import typename
from .._variable import Variable, is_array, raw
from ._loading import loaded

Group = dict[str, Any]
State = dict[str, Any]


class Optimizer:
    """The base class of SGD, Adam and AdamW, which implement one step of one parameter.

    Attributes:
        param_groups: settings and parameters, one dict per group.
        state: the state of each Parameter, by name.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = nn.optim.SGD(model.named_parameters(), lr=0.1)
    >>> [group["lr"] for group in optimizer.param_groups], list(optimizer.state_dict())
    ([0.1], ['state', 'param_groups'])
    """

    # Names that the state of a parameter must have, unless it is empty.
    needed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        if isinstance(params, Variable) or is_array(params):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                f"{typename(params)}"
            )
        self.defaults = dict(defaults)
        self._check(self.defaults)
        self.state: defaultdict[Parameter, State] = defaultdict(dict)
        self.param_groups: list[Group] = []
        given = list(params)
        if not given:
            raise ValueError("optimizer got an empty parameter list")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters (a Parameter, several, or pairs of name and Parameter) with their own settings."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        given = param_group["params"]
        if isinstance(given, (set, frozenset)):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
                "will change between runs. Please use a list instead."
            )
        members = [given] if isinstance(given, Variable) else list(given)
        names = [member[0] for member in members if isinstance(member, tuple)]
        parameters = [member[1] if isinstance(member, tuple) else member for member in members]
        self._check_members(parameters, names)
        named = {"param_names": names} if names else {}
        settings = {name: value for name, value in param_group.items() if name != "params"}
        group: Group = {**settings, "params": parameters, **named}
        for name, value in self.defaults.items():
            group.setdefault(name, value)
        self._check(group)
        self.param_groups.append(group)

    def _check_members(self, parameters: list[Any], names: list[str]) -> None:
        if names and len(names) != len(parameters):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        if self.param_groups and ("param_names" in self.param_groups[0]) != bool(names):
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group with"
                f"{'' if names else 'out'} names to the optimizer"
            )
        for parameter in parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {typename(type(parameter))}"
                )
        if len(set(parameters)) < len(parameters):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause an error; "
                "see github.com/pytorch/pytorch/issues/40967 for more information",
                stacklevel=4,
            )
        if not {p for group in self.param_groups for p in group["params"]}.isdisjoint(parameters):
            raise ValueError("some parameters appear in more than one parameter group")

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError for settings out of range."""
        if settings["lr"] < 0:
            raise ValueError(f"Invalid learning rate: {settings['lr']}")
        if settings["weight_decay"] < 0:
            raise ValueError(f"Invalid weight_decay value: {settings['weight_decay']}")

    def _update(self, group: Group, parameter: Parameter, grad: Any, state: State) -> None:
        """Make one step of one parameter."""
        raise NotImplementedError

    def step(self, closure: Callable[[], Any] | None = None, *, grads: Any = None) -> Any:
        """Change every parameter that has a gradient.

        Args:
            closure: called first; it sets the gradients and returns the loss, which `step` returns.
            grads: the gradients to use instead of `parameter.grad`: a mapping by name (if the optimizer was created with
                named parameters), or a sequence in the order of the parameters. None: the parameter has no gradient.
        """
        loss = None if closure is None else closure()
        given = None if grads is None else self._by_parameter(grads)
        for group in self.param_groups:
            for parameter in group["params"]:
                grad = raw(parameter.grad if given is None else given.get(parameter))
                if grad is not None:
                    sign = -1 if group["maximize"] else 1
                    self._update(group, parameter, grad if sign == 1 else -grad, self.state[parameter])
        return loss

    def _by_parameter(self, grads: Any) -> dict[Parameter, Any]:
        parameters = [p for group in self.param_groups for p in group["params"]]
        if isinstance(grads, Mapping):
            names = [name for group in self.param_groups for name in group.get("param_names", ())]
            unknown = sorted(set(grads) - set(names))
            if unknown:
                raise ValueError(
                    f"gradients for unknown parameters: {', '.join(map(repr, unknown))}; "
                    "to use names, create the optimizer with model.named_parameters()"
                )
            return {p: grads.get(name) for name, p in zip(names, parameters)}
        listed = list(grads)
        if len(listed) != len(parameters):
            raise ValueError(f"{len(listed)} gradients for {len(parameters)} parameters")
        return dict(zip(parameters, listed))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Delete every parameter's gradient, or fill it with zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                clear_grad(parameter, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {number: …}, "param_groups": [{settings, "params": [numbers]}]}`; the arrays are not copied.

        Parameters are numbered in order, across all groups.
        """
        numbers: dict[Parameter, int] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                numbers.setdefault(parameter, len(numbers))
        groups = []
        for group in self.param_groups:
            settings = {name: value for name, value in group.items() if name != "params"}
            groups.append({**settings, "params": [numbers[p] for p in group["params"]]})
        state = {numbers[p]: dict(values) for p, values in self.state.items() if values}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load settings and state from a `state_dict` of this optimizer or of PyTorch's.

        Parameters are matched by name if both sides have the same names, otherwise by position. Arrays are copied, and
        keep their dtype. Raises ValueError if the groups differ, LoadError if a state does not fit its parameter; then
        nothing has changed.
        """
        groups, state = loaded(self.param_groups, state_dict, self.needed)
        for group, old in zip(groups, self.param_groups):
            for name, value in {**self.defaults, **old}.items():
                group.setdefault(name, value)
        self.param_groups = groups
        self.state = defaultdict(dict, state)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines += [f"Parameter Group {i}"]
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def zeros_like(parameter: Parameter) -> Any:
    """Return a new array of zeros like the parameter's."""
    return _arrays.full(parameter.data, parameter.shape, 0)
