"""Roots: the state dicts in what a file holds, each by the path that leads to it.

A *root* is

- a mapping from text to values of which at least half are tensors and none is a state itself, or which has the `_metadata`
  that PyTorch's `state_dict` leaves; also one of an unknown class, as far as the file tells its items;
- a module that was saved whole;
- an optimizer's state: a mapping with `state` and `param_groups`;
- an empty mapping that is the file itself.

Paths join the keys with `/`; `""` is the file itself. What lies below a root is not looked into.

`root="auto"` is, in this order:

1. the file itself, if it is a root;
2. the only root that is not an optimizer's; in a file of nothing else, the only optimizer's;
3. of several, the one whose last key is in `PREFERRED`, nearest to the top and then in the order of that list. Averages (a
   step of the path that says `ema`, `swa` or `average`) are no model's default where there is another.

Anything else is ambiguous, and the choices are listed: a generator beside a discriminator is nobody's default.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from statedict.state import Compound, Leaf, Opaque, StateDict, library_of, nearest

from ..errors import RootError
from ._pickle import Pair
from ._shown import step_of
from ._whole_module import is_module, state_of_module

# What the model is called in a training checkpoint: Lightning, timm, mmengine; accelerate and most scripts; fairseq,
# detectron2, YOLO; DeepSpeed; nnU-Net; BasicSR …
PREFERRED = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model_dict",
    "model",
    "module",
    "net_state_dict",
    "network_state_dict",
    "net",
    "network",
    "network_weights",
    "model_weights",
    "weights",
    "weight",
    "params",
    "parameters",
    "state",
)
_AVERAGE = re.compile(r"(?:\A|[^a-z])(?:ema|swa|averaged?)(?:[^a-z]|\Z)", re.IGNORECASE)
# A checkpoint's parts lie within a few steps; a deeper tree is somebody's data.
DEEPEST = 6


def find_roots(tree: Any) -> dict[str, StateDict]:
    """Every root of a tree, by its path, in order.

    >>> import numpy as np
    >>> weights = {"0.weight": np.ones(2), "0.bias": np.ones(1)}
    >>> list(find_roots({"epoch": 3, "model": weights, "ema": {"state_dict": weights}}))
    ['model', 'ema/state_dict']
    """
    return dict(_found(tree))


def choose_root(roots: Mapping[str, StateDict], root: str, file: str | None = None) -> StateDict:
    """The root at a path, or the one that `"auto"` means; raises RootError, with the choices, where there is none."""
    if root != "auto":
        if root in roots:
            return roots[root]
        near = nearest(root, list(roots), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RootError(f"it holds no state dict at {root!r}{hint}", file=file, choices=list(roots))
    if not roots:
        raise RootError("it holds no state dict", file=file)
    models = {path: state for path, state in roots.items() if not is_optimizer(state)} or roots
    chosen = "" if "" in models else next(iter(models)) if len(models) == 1 else _preferred(models)
    if chosen is None:
        kind = "optimizers' states" if models is roots and is_optimizer(next(iter(roots.values()))) else "state dicts"
        raise RootError(f"it holds several {kind}, and none is called the model's", file=file, choices=list(roots))
    return models[chosen]


def is_optimizer(state: StateDict) -> bool:
    """Whether a root is an optimizer's state, as `_flat` makes it."""
    return "param_groups" in state and all(name == "param_groups" or name.startswith("state.") for name in state)


def _found(tree: Any) -> Iterator[tuple[str, StateDict]]:
    waiting: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        state = _as_root(value)
        if state is None and not path and isinstance(value, Mapping) and not value:
            state = StateDict()
        if state is not None:
            yield "/".join(path), state
        elif id(value) not in seen and len(path) < DEEPEST:
            parts = _parts(value)
            if parts:
                seen.add(id(value))
            waiting.extend(((*path, key), part) for key, part in reversed(parts))


def _as_root(value: Any) -> StateDict | None:
    if isinstance(value, StateDict):
        return value
    if is_module(value):
        return state_of_module(value)
    mapping = _mapping(value)
    if mapping is None or not _is_state(value, mapping):
        return None
    if _is_optimizer(mapping):
        return _flat(mapping)
    metadata = _metadata(value)
    kinds = {type(part) for part in _of_each_type(mapping) if not _is_tensor(part)}
    if metadata is None and kinds and any(_holds_state(part) for part in mapping.values() if type(part) in kinds):
        return None
    # Its names are known to be strings.
    return StateDict.adopt(dict(mapping), None if metadata is None else OrderedDict(metadata))


def _is_state(value: Any, mapping: Mapping[str, Any]) -> bool:
    """Whether a mapping is a state, by what lies directly in it."""
    if _is_optimizer(mapping):
        return True
    if _metadata(value) is not None:
        return True
    kinds = set(map(type, mapping.values()))
    if kinds == {Leaf}:
        return True
    counts = Counter(map(type, mapping.values()))
    return 0 < len(mapping) <= 2 * sum(counts[type(part)] for part in _of_each_type(mapping) if _is_tensor(part))


def _is_optimizer(mapping: Mapping[str, Any]) -> bool:
    return "state" in mapping and "param_groups" in mapping


def _of_each_type(mapping: Mapping[str, Any]) -> list[Any]:
    """One value of each type that there is: asking each of 32,000 whether it is a tensor takes 7 ms."""
    if len(set(map(type, mapping.values()))) == 1:
        return [next(iter(mapping.values()))]
    return list({type(part): part for part in mapping.values()}.values())


def _holds_state(value: Any) -> bool:
    """Whether a value beside tensors is a root of its own, so that what holds both is none: `{"model": …, "loss": …}`."""
    if _is_tensor(value):
        return False
    mapping = _mapping(value)
    return is_module(value) or (mapping is not None and _is_state(value, mapping))


def _mapping(value: Any) -> Mapping[str, Any] | None:
    """A mapping from text: a real one, or the items of an unknown class of them."""
    if isinstance(value, Opaque):
        pairs = [item for item in value.items if type(item) is Pair]
        return {pair.key: pair.value for pair in pairs} if pairs and all(type(p.key) is str for p in pairs) else None
    if not isinstance(value, Mapping):
        return None
    # Each look through an OrderedDict takes three times as long as through a dict.
    value = dict(value) if type(value) is OrderedDict else value
    return value if {str}.issuperset(map(type, value)) or all(isinstance(key, str) for key in value) else None


def _metadata(value: Any) -> Mapping[str, Any] | None:
    found = value.attributes().get("_metadata") if isinstance(value, Opaque) else getattr(value, "_metadata", None)
    return found if isinstance(found, Mapping) else None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Leaf, Compound)) or library_of(value) is not None


def _flat(optimizer: Mapping[str, Any]) -> StateDict:
    """An optimizer's state with its tensors under dotted names: `state.0.exp_avg`."""
    values: dict[str, Any] = {}
    state = optimizer["state"]
    for number, entry in state.items() if isinstance(state, Mapping) else ():
        for name, value in entry.items() if isinstance(entry, Mapping) else ():
            values[f"state.{number}.{name}"] = value
    values["param_groups"] = optimizer["param_groups"]
    return StateDict(values)


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(step_of(key), part) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [(str(index), part) for index, part in enumerate(value)]
    if not isinstance(value, Opaque):
        return []
    items = [item if type(item) is Pair else Pair(index, item) for index, item in enumerate(value.items)]
    inside = [*value.attributes().items(), *enumerate(value.args or ()), *value.kwargs.items(), *items]
    return [(step_of(key), part) for key, part in inside]


def _preferred(models: Mapping[str, StateDict]) -> str | None:
    """The path that the rule of preference names, or None where two are as good."""
    plain = [path for path in models if not _AVERAGE.search(path)]
    if len(plain) == 1:
        return plain[0]
    ranks = {path: rank for path in plain if (rank := _rank(path)) is not None}
    ordered = sorted(ranks, key=lambda path: ranks[path])
    if not ordered or (len(ordered) > 1 and ranks[ordered[0]] == ranks[ordered[1]]):
        return None
    return ordered[0]


def _rank(path: str) -> tuple[int, int] | None:
    """Depth, then place in PREFERRED, of the last key; None where the path is not called a model's."""
    steps = path.split("/")
    return (len(steps), PREFERRED.index(steps[-1])) if steps[-1] in PREFERRED else None
