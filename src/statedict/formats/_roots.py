"""Roots: the state dicts in what a file holds, each by the path that leads to it.

A *root* is a mapping from text to values of which at least half are tensors, or which has the `_metadata` that PyTorch's
`state_dict` leaves; a module that was saved whole; an optimizer's state (`state` and `param_groups`). Paths join the keys
with `/`; `""` is the file itself. What lies below a root is not looked into.

`root="auto"` is, in this order:

1. the file itself, if it is a root;
2. the only root that is not an optimizer's;
3. of several, the one whose key comes first in `PREFERRED`, nearest to the top, provided that no other one is as good.

Anything else is ambiguous, and the choices are listed: a generator beside a discriminator is nobody's default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from statedict.state import Opaque, StateDict, leaf_of, nearest

from ..errors import RootError
from ._whole_module import is_module, state_of_module

# What people call the model in a training checkpoint: Lightning, timm and mmengine; accelerate and many scripts; DeepSpeed …
PREFERRED = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "parameters",
)
# A checkpoint's parts lie within a few steps; a deeper tree is somebody's data.
DEEPEST = 6


def find_roots(tree: Any) -> dict[str, StateDict]:
    """Every root of a tree, by its path, in order."""
    return dict(_found(tree))


def choose_root(roots: Mapping[str, StateDict], root: str, file: str | None = None) -> StateDict:
    """The root at a path, or the one that `"auto"` means; raises RootError, with the choices, where there is none."""
    if root != "auto":
        if root in roots:
            return roots[root]
        near = nearest(root, list(roots), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RootError(f"it holds no state dict at {root!r}{hint}", file=file, choices=list(roots))
    models = {path: state for path, state in roots.items() if not is_optimizer(state)}
    if "" in models or len(models) == 1:
        return models.get("", next(iter(models.values())))
    if not models:
        raise RootError("it holds no state dict of a model", file=file, choices=list(roots))
    best = _best(models)
    if best is None:
        raise RootError("it holds several state dicts, and none is called the model's", file=file, choices=list(roots))
    return models[best]


def is_optimizer(state: StateDict) -> bool:
    """Whether a root is an optimizer's state."""
    return "param_groups" in state


def _found(tree: Any) -> Iterator[tuple[str, StateDict]]:
    waiting: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        state = _as_root(value)
        if state is not None:
            yield "/".join(path), state
        elif len(path) < DEEPEST:
            parts = _parts(value)
            if parts:
                seen.add(id(value))
            waiting.extend(((*path, key), part) for key, part in reversed(parts))


def _as_root(value: Any) -> StateDict | None:
    if isinstance(value, StateDict):
        return value
    if isinstance(value, Opaque):
        return state_of_module(value) if is_module(value) else None
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        return None
    if "state" in value and "param_groups" in value:
        return _flat(value)
    if isinstance(getattr(value, "_metadata", None), Mapping):
        return StateDict(value)
    tensors = sum(leaf_of(part) is not None for part in value.values())
    return StateDict(value) if 2 * tensors >= len(value) else None


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
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [(str(index), part) for index, part in enumerate(value)]
    return list(value.attributes().items()) if isinstance(value, Opaque) else []


def _best(models: Mapping[str, StateDict]) -> str | None:
    """The path that the rule of preference names, or None where two are as good."""
    ranks = {path: rank for path in models if (rank := _rank(path)) is not None}
    ordered = sorted(ranks, key=lambda path: ranks[path])
    if not ordered or (len(ordered) > 1 and ranks[ordered[0]] == ranks[ordered[1]]):
        return None
    return ordered[0]


def _rank(path: str) -> tuple[int, int] | None:
    """Depth, then place in PREFERRED, of the last key; None where the path is not called a model's, or is an average."""
    steps = path.split("/")
    if steps[-1] not in PREFERRED or any("ema" in step.lower() for step in steps):
        return None
    return len(steps), PREFERRED.index(steps[-1])
