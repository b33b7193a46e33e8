"""Convert the tree of a distributed checkpoint to the usual form: optimizers as `Optimizer.state_dict` returns them, and the
model at the root `model`.

torch.distributed.checkpoint writes dict keys as text, so the numbers of parameters become `"0"`, `"1"` … Some
states are flat: with `StateDictOptions(flatten_optimizer_state_dict=True)` every value of an optimizer has a name, such as
`state.layer.weight.exp_avg` or `param_groups.layer.weight.lr`; torchtitan also saves the model's tensors beside the
optimizer, without a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from statedict.state import Leaf

MODEL = "model"
# A flat name: which part of the state, the parameter, and the value of this parameter (which has no dots).
FLAT = re.compile(r"(?P<part>state|param_groups)\.(?P<parameter>.+)\.(?P<value>[^.]+)")
OPTIMIZERS = ("optimizer", "optim")
PLAIN = (int, float, str, type(None))


def with_roots(tree: dict[Any, Any]) -> dict[Any, Any]:
    """Return the tree with its optimizer states, at most one level deep, and the model in their usual form."""
    tree = _lifted(tree)
    whole = _optimizer(tree)
    if whole is not tree:
        return whole
    made = {key: _optimizer(value) if isinstance(value, dict) else value for key, value in tree.items()}
    groups = [group for value in made.values() if _is_state(value) for group in value["param_groups"]]
    return _with_model(made, _parameters(groups)) if groups else made


def _parameters(groups: Iterable[Any]) -> set[str]:
    """Return the names of the parameters in an optimizer's groups."""
    listed = [group.get("params") for group in groups if isinstance(group, dict)]
    return {name for names in listed if isinstance(names, list) for name in names if isinstance(name, str)}


def _lifted(tree: dict[Any, Any]) -> dict[Any, Any]:
    """Return a tree without nesting (`optim.state.weight.exp_avg`) with the entries of each optimizer in a dict."""
    for root in OPTIMIZERS:
        prefix = f"{root}."
        inside = {name.removeprefix(prefix): tree[name] for name in tree if str(name).startswith(prefix)}
        if root not in tree and _is_flat(inside):
            tree = {name: value for name, value in tree.items() if not str(name).startswith(prefix)} | {root: inside}
    return tree


def _optimizer(value: dict[Any, Any]) -> dict[Any, Any]:
    """Return the state of an optimizer in its usual form; anything else unchanged."""
    if _is_flat(value):
        return _unflattened(value)
    return _numbered(value) if _is_state(value) else value


def _is_state(value: object) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("state"), dict) and isinstance(value.get("param_groups"), list)
    )


def _is_flat(values: Mapping[Any, Any]) -> bool:
    parts = [match["part"] if (match := FLAT.fullmatch(str(name))) else None for name in values]
    return "param_groups" in parts and None not in parts


def _unflattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested state of flat names. Parameters with the same options form a group."""
    found: dict[str, dict[str, dict[str, Any]]] = {"state": {}, "param_groups": {}}
    for name, value in values.items():
        match = FLAT.fullmatch(name)
        if match is not None:
            found[match["part"]].setdefault(match["parameter"], {})[match["value"]] = value
    groups: dict[object, dict[str, Any]] = {}
    for parameter, options in found["param_groups"].items():
        key = tuple((name, _comparable(value)) for name, value in options.items())
        groups.setdefault(key, {**options, "params": []})["params"].append(parameter)
    return {"state": found["state"], "param_groups": list(groups.values())}


def _comparable(value: object) -> object:
    """Return what two equal options have in common. Tensors and containers are not compared: they differ."""
    plain = isinstance(value, PLAIN) or (isinstance(value, tuple) and all(isinstance(part, PLAIN) for part in value))
    return (type(value), value) if plain else id(value)


def _numbered(optimizer: dict[Any, Any]) -> dict[Any, Any]:
    """Return an optimizer state whose keys are those in the groups' `params`: numbers that were saved as text."""
    groups = [group for group in optimizer["param_groups"] if isinstance(group, dict)]
    listed = [group["params"] for group in groups if isinstance(group.get("params"), list)]
    numbers = {str(key): key for params in listed for key in params if type(key) is int}
    if not numbers:
        return optimizer
    return {**optimizer, "state": {numbers.get(key, key): value for key, value in optimizer["state"].items()}}


def _with_model(tree: dict[Any, Any], parameters: set[str]) -> dict[Any, Any]:
    """Return the tree with the tensors that are beside an optimizer at `model`: those with dots or of the parameters."""
    model = {
        name: value
        for name, value in tree.items()
        if isinstance(value, Leaf) and ("." in str(name) or name in parameters)
    }
    if not model or MODEL in tree:
        return tree
    prefix = f"{MODEL}." if all(name.startswith(f"{MODEL}.") for name in model) else ""
    plain = {name.removeprefix(prefix): value for name, value in model.items()}
    return {MODEL: plain, **{name: value for name, value in tree.items() if name not in model}}
