"""The state entries of PyTorch's optimizers with their shapes, and whether saved options and entries fit an optimizer.

The state of another optimizer class or another model is detected by its options, its entries and their shapes before it is
loaded, because it would make a later `step()` fail. Problems are returned as texts. An optimizer class that is not in the
table, or that overrides `step`, is not checked.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import optim
from torch.nn.parameter import is_lazy

from statedict.state import Compound, Leaf, Opaque

from ..snapshots._copy_tree import values_of
from ._read import Slot

Options = Mapping[str, Any]


class Expected(NamedTuple):
    """An entry's shape (() for a number or a tensor of one element), whether it is required, and if known, is complex."""

    shape: tuple[int, ...]
    needed: bool = True
    is_complex: bool | None = None


Expect = Callable[[torch.Tensor, Options], dict[str, Expected]]
# Entries that are numbers, not elements like the parameter's; a requested dtype does not apply to them.
NUMBERS = frozenset({"step", "mu_product", "eta", "mu"})
# Options for the implementation, not the algorithm: if a saved group lacks one, the optimizer keeps its own.
IMPLEMENTATION = frozenset({"foreach", "fused", "capturable", "differentiable", "maximize"})


def _expected(optimizer: Any, parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    """The entries of the parameter's state; empty if the optimizer's class is unknown."""
    rule = _rule(optimizer)
    return rule(parameter, options) if rule else {}


def known(optimizer: Any) -> bool:
    """Return whether the optimizer's class is one of PyTorch's, or inherits the `step` of one."""
    return _rule(optimizer) is not None


def order_matters(optimizer: optim.Optimizer) -> bool:
    """Return whether the optimizer has one state for all parameters together, in their order."""
    return isinstance(optimizer, optim.LBFGS)


def _lacking(optimizer: optim.Optimizer, number: int, options: Options) -> list[str]:
    """The options that a group needs but `options` lacks, even after its class has filled in options of newer versions."""
    filled = _completed(optimizer, options)
    return [key for key in needed(optimizer, number) if key not in filled and key not in IMPLEMENTATION]


def needed(optimizer: optim.Optimizer, number: int) -> list[str]:
    """The options of a group that its optimizer was built with, without those that a scheduler or the user added."""
    # `__setstate__` adds "differentiable" to the defaults of every class, even if the class has no such option.
    return [key for key in optimizer.defaults if key in optimizer.param_groups[number]]


def _makers(options: Iterable[str]) -> list[type[optim.Optimizer]]:
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


def wrong_options(optimizer: optim.Optimizer, number: int, options: Options) -> str | None:
    """The reason why the options belong to another optimizer class or contain an unknown class; None if they fit."""
    for key, value in options.items():
        unknown = _unknown(value)
        if unknown:
            return f"{key!r} in group {number} of the saved state is an object of the unknown class {unknown}"
    kind, candidates = type(optimizer).__name__, _makers(options)
    as_ = f" (options of {' or '.join(maker.__name__ for maker in candidates)})" if candidates else ""
    missing = _lacking(optimizer, number, options)
    if missing:
        has = f"it has {_listed(options)}{as_}"
        return f"group {number} of the saved state lacks {_listed(missing)}, which {kind} needs; {has}"
    if known(optimizer) and candidates and not any(isinstance(optimizer, maker) for maker in candidates):
        strange = [key for key in options if key not in optimizer.param_groups[number]]
        return f"group {number} of the saved state has {_listed(strange)}{as_}, but {kind} does not have these options"
    return None


def misfits(optimizer: optim.Optimizer, slot: Slot, state: Any, options: Options) -> list[str]:
    """Errors in the state for the slot's parameter, whose group will have these options."""
    if state is None:
        return []
    if is_lazy(slot.parameter):
        return ["the parameter is not initialized: run a forward pass before loading the optimizer's state"]
    if slot.parameter.is_meta:
        return ["the parameter is on the meta device: move it to a device before loading the optimizer's state"]
    if not isinstance(state, Mapping):
        return [f"its state must be a dict, not {type(state).__name__}"]
    if not state:
        return []
    wanted = _expected(optimizer, slot.parameter, options) or _present(optimizer, slot.parameter)
    flat = _flat_problems(optimizer, state) if order_matters(optimizer) else []
    return _problems(type(optimizer).__name__, state, wanted) + flat


def _problems(kind: str, state: Mapping[Any, Any], wanted: Mapping[Any, Expected]) -> list[str]:
    absent = [key for key, entry in wanted.items() if entry.needed and key not in state]
    problems = []
    if absent:
        problems.append(f"its saved state lacks {_listed(absent)}, which {kind} needs; it has {_listed(state)}")
    for key, value in state.items():
        entry, shape = wanted.get(key), _shape(value)
        if entry is not None and _fits(entry, shape, value):
            problems += _wrong_numbers(key, entry, value)
            continue
        unknown = _unknown(value)
        if unknown:
            problems.append(f"its {key!r} is an object of the unknown class {unknown}")
        elif entry is not None:
            found = f"shape {list(shape)}" if shape is not None else type(value).__name__
            problems.append(f"its {key!r} must have shape {list(entry.shape)}, but the saved state has {found}")
    return problems


def _wrong_numbers(key: Any, wanted: Expected, value: Any) -> list[str]:
    """Return a problem for a complex tensor where a real one is needed, or the reverse: `step()` would raise."""
    dtype = value.spec.dtype if isinstance(value, Leaf) else getattr(value, "dtype", None)
    if wanted.is_complex is None or dtype is None or dtype.is_complex == wanted.is_complex:
        return []
    here = "complex" if wanted.is_complex else "real"
    return [
        f"its {key!r} must be {here}, like the parameter, but the saved state has {str(dtype).removeprefix('torch.')}"
    ]


def _unknown(value: Any) -> str | None:
    """Return the first unknown class in a value, or None."""
    return next((inside.path for inside in values_of(value) if isinstance(inside, Opaque)), None)


def _fits(wanted: Expected, shape: tuple[int, ...] | None, value: Any) -> bool:
    if shape is None:
        return value is None and not wanted.needed
    return shape == wanted.shape or (wanted.shape == () and all(size == 1 for size in shape))


def _shape(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, Leaf):
        return value.spec.shape
    if isinstance(value, (torch.Tensor, Compound)):
        return tuple(value.shape)
    return () if isinstance(value, (int, float, complex)) else None


def _present(optimizer: optim.Optimizer, parameter: torch.Tensor) -> dict[Any, Expected]:
    """For an optimizer of an unknown class: the entries that currently have the parameter's shape must have it again."""
    state = optimizer.state.get(parameter)
    entries = state.items() if isinstance(state, Mapping) else ()
    shape = tuple(parameter.shape)
    alike = [key for key, value in entries if isinstance(value, torch.Tensor) and value.shape == shape and shape]
    return dict.fromkeys(alike, Expected(shape, needed=False))


def _flat_problems(optimizer: optim.Optimizer, state: Mapping[Any, Any]) -> list[str]:
    total = sum(p.numel() * (2 if p.is_complex() else 1) for group in optimizer.param_groups for p in group["params"])
    return [
        f"its {key!r} must have {total} elements, as all parameters together, but the saved state has shape {list(shape)}"
        for key in ("d", "prev_flat_grad")
        if (shape := _shape(state.get(key))) and shape != (total,)
    ]


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"


# the entries of each class


def _like(*names: str, numbers: tuple[str, ...] = ("step",), needed: bool = True, **optional: str) -> Expect:
    """Entries with the parameter's shape, and numbers; an option of the name of `optional`, if set, adds an entry."""

    def expect(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
        added = (name for option, name in optional.items() if options.get(option))
        entry = Expected(tuple(parameter.shape), needed, parameter.is_complex())
        return {**dict.fromkeys(numbers, Expected(())), **dict.fromkeys((*names, *added), entry)}

    return expect


def _adafactor(parameter: torch.Tensor, options: Options) -> dict[str, Expected]:
    shape = tuple(parameter.shape)
    if len(shape) < 2:
        return _like("variance")(parameter, options)
    return {
        "step": Expected(()),
        "row_var": Expected((*shape[:-1], 1)),
        "col_var": Expected((*shape[:-2], 1, shape[-1])),
    }


_EXPECTED: dict[str, Expect] = {
    "Adadelta": _like("square_avg", "acc_delta"),
    "Adafactor": _adafactor,
    "Adagrad": _like("sum"),
    "Adam": _like("exp_avg", "exp_avg_sq", amsgrad="max_exp_avg_sq"),
    "AdamW": _like("exp_avg", "exp_avg_sq", amsgrad="max_exp_avg_sq"),
    "Adamax": _like("exp_avg", "exp_inf"),
    "ASGD": _like("ax", numbers=("step", "eta", "mu")),
    "LBFGS": _like(numbers=("func_evals", "n_iter")),
    "Muon": _like("momentum_buffer", numbers=()),
    "NAdam": _like("exp_avg", "exp_avg_sq", numbers=("step", "mu_product")),
    "RAdam": _like("exp_avg", "exp_avg_sq"),
    "RMSprop": _like("square_avg", momentum="momentum_buffer", centered="grad_avg"),
    "Rprop": _like("prev", "step_size"),
    "SGD": _like("momentum_buffer", numbers=(), needed=False),
    "SparseAdam": _like("exp_avg", "exp_avg_sq"),
}
