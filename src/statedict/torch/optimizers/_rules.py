"""What the optimizers that come with PyTorch keep of each parameter: which entries, of which shape.

In go a parameter and its group's options; out come the entries that `step()` will look for. The rule guarded: state that
would fail in the middle of a later `step()` is recognised before it is loaded. A class that is not in the table, or that
has a `step` of its own, is not judged.
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
    """An entry's shape, () for a number or a tensor of one element; and whether it must be there."""

    shape: tuple[int, ...]
    needed: bool = True


Expect = Callable[[torch.Tensor, Options], dict[str, Expected]]
# The numbers among a parameter's state, which are not elements like its own: a dtype asked for is not meant for them.
NUMBERS = frozenset({"step", "mu_product", "eta", "mu"})
# Options that say how to compute, not what: where a saved group lacks one, the optimizer's own is kept.
MANNERS = frozenset({"foreach", "fused", "capturable", "differentiable", "maximize"})


def expected(optimizer: Any, parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    """The entries of the parameter's state; empty where nothing is known of the optimizer's class."""
    rule = _rule(optimizer)
    return rule(parameter, options) if rule else {}


def known(optimizer: Any) -> bool:
    """Whether its class is one of PyTorch's, or steps as one of them does."""
    return _rule(optimizer) is not None


def order_matters(optimizer: optim.Optimizer) -> bool:
    """Whether the optimizer keeps one state for all parameters together, laid out in their order."""
    return isinstance(optimizer, optim.LBFGS)


def lacking(optimizer: optim.Optimizer, number: int, options: Options) -> list[str]:
    """The options that a group has and needs, and neither these nor what its class fills in for older versions have."""
    filled = _completed(optimizer, options)
    return [key for key in needed(optimizer, number) if key not in filled and key not in MANNERS]


def needed(optimizer: optim.Optimizer, number: int) -> list[str]:
    """The options of a group that its optimizer was built with, not those that a scheduler or a person added."""
    # `__setstate__` adds "differentiable" to the defaults of every class, also of those that have no such option.
    return [key for key in optimizer.defaults if key in optimizer.param_groups[number]]


def makers(options: Iterable[str]) -> list[type[optim.Optimizer]]:
    """PyTorch's optimizers whose groups can have these options, all of them."""
    given = set(options) - {"initial_lr"}
    return [kind for kind, own in _signatures().items() if given <= own]


@cache
def _signatures() -> dict[type[optim.Optimizer], frozenset[str]]:
    kinds = [getattr(optim, name) for name in _EXPECTED if hasattr(optim, name)]
    return {kind: frozenset(inspect.signature(kind).parameters) for kind in kinds}


def _completed(optimizer: optim.Optimizer, options: Options) -> Options:
    kind = type(optimizer)
    if not kind.__setstate__.__module__.startswith("torch.optim."):
        # Somebody else's `__setstate__` may expect parameters, so it is not tried out: what it may add is not missed.
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
    """A step count, and entries shaped like the parameter."""
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
