"""The state entries of PyTorch's optimizers, and their shapes, for each parameter.

This detects, before loading, state that would make a later `step()` fail. An optimizer class that is not in the table, or
that overrides `step`, is not checked.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import optim

Options = Mapping[str, Any]


class Expected(NamedTuple):
    """An entry's shape (() for a number or a tensor of one element), and whether the entry is required."""

    shape: tuple[int, ...]
    needed: bool = True


Expect = Callable[[torch.Tensor, Options], dict[str, Expected]]
# Entries that are numbers, not elements like the parameter's; a requested dtype does not apply to them.
NUMBERS = frozenset({"step", "mu_product", "eta", "mu"})
# Options for the implementation, not the algorithm: if a saved group lacks one, the optimizer keeps its own.
IMPLEMENTATION = frozenset({"foreach", "fused", "capturable", "differentiable", "maximize"})


def expected(optimizer: Any, parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    """The entries of the parameter's state; empty if the optimizer's class is unknown."""
    rule = _rule(optimizer)
    return rule(parameter, options) if rule else {}


def known(optimizer: Any) -> bool:
    """Whether the optimizer's class is one of PyTorch's, or inherits the `step` of one."""
    return _rule(optimizer) is not None


def order_matters(optimizer: optim.Optimizer) -> bool:
    """Whether the optimizer has one state for all parameters together, in their order."""
    return isinstance(optimizer, optim.LBFGS)


def lacking(optimizer: optim.Optimizer, number: int, options: Options) -> list[str]:
    """The options that a group needs but `options` lacks, even after its class has filled in options of newer versions."""
    filled = _completed(optimizer, options)
    return [key for key in needed(optimizer, number) if key not in filled and key not in IMPLEMENTATION]


def needed(optimizer: optim.Optimizer, number: int) -> list[str]:
    """The options of a group that its optimizer was built with, without those that a scheduler or the user added."""
    # `__setstate__` adds "differentiable" to the defaults of every class, even if the class has no such option.
    return [key for key in optimizer.defaults if key in optimizer.param_groups[number]]


def makers(options: Iterable[str]) -> list[type[optim.Optimizer]]:
    """All PyTorch optimizers whose groups can have these options."""
    given = set(options) - {"initial_lr"}
    return [kind for kind, own in _signatures().items() if given <= own]


@cache
def _signatures() -> dict[type[optim.Optimizer], frozenset[str]]:
    kinds = [getattr(optim, name) for name in _EXPECTED if hasattr(optim, name)]
    return {kind: frozenset(inspect.signature(kind).parameters) for kind in kinds}


def _completed(optimizer: optim.Optimizer, options: Options) -> Options:
    kind = type(optimizer)
    if not kind.__setstate__.__module__.startswith("torch.optim."):
        # A third-party `__setstate__` may need parameters, so it is not called; options that it may add do not count as
        # missing.
        return {**optimizer.defaults, **options}
    scratch = kind.__new__(kind)
    scratch.defaults = dict(optimizer.defaults)
    group = {**options, "params": []}
    scratch.__setstate__({"state": defaultdict(dict), "param_groups": [group]})
    return group


def _rule(optimizer: Any) -> Expect | None:
    kind: Any = type(optimizer)
    return _rule_of(kind)


@cache
def _rule_of(kind: Any) -> Expect | None:
    for base in kind.__mro__:
        if base.__name__ in _EXPECTED and vars(optim).get(base.__name__) == base:
            same = inspect.unwrap(kind.step) is inspect.unwrap(base.step)
            return _EXPECTED[base.__name__] if same else None
    return None


def _like(*names: str) -> Expect:
    """A step count, and entries with the parameter's shape."""
    return lambda parameter, options: {"step": Expected(()), **dict.fromkeys(names, Expected(tuple(parameter.shape)))}


def _adam(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    most = ("max_exp_avg_sq",) if options.get("amsgrad") else ()
    return _like("exp_avg", "exp_avg_sq", *most)(parameter, options)


def _rmsprop(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    momentum = ("momentum_buffer",) if options.get("momentum") else ()
    centred = ("grad_avg",) if options.get("centered") else ()
    return _like("square_avg", *momentum, *centred)(parameter, options)


def _sgd(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    return {"momentum_buffer": Expected(tuple(parameter.shape), needed=False)}


def _muon(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    return {"momentum_buffer": Expected(tuple(parameter.shape))}


def _asgd(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    return _like("ax")(parameter, options) | {"eta": Expected(()), "mu": Expected(())}


def _nadam(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    return _like("exp_avg", "exp_avg_sq")(parameter, options) | {"mu_product": Expected(())}


def _adafactor(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    shape = tuple(parameter.shape)
    if len(shape) < 2:
        return _like("variance")(parameter, options)
    return {
        "step": Expected(()),
        "row_var": Expected((*shape[:-1], 1)),
        "col_var": Expected((*shape[:-2], 1, shape[-1])),
    }


def _lbfgs(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    return {"func_evals": Expected(()), "n_iter": Expected(())}


_EXPECTED: dict[str, Expect] = {
    "Adadelta": _like("square_avg", "acc_delta"),
    "Adafactor": _adafactor,
    "Adagrad": _like("sum"),
    "Adam": _adam,
    "AdamW": _adam,
    "Adamax": _like("exp_avg", "exp_inf"),
    "ASGD": _asgd,
    "LBFGS": _lbfgs,
    "Muon": _muon,
    "NAdam": _nadam,
    "RAdam": _like("exp_avg", "exp_avg_sq"),
    "RMSprop": _rmsprop,
    "Rprop": _like("prev", "step_size"),
    "SGD": _sgd,
    "SparseAdam": _like("exp_avg", "exp_avg_sq"),
}
