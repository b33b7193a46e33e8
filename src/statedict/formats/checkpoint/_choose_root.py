"""Which root a caller means: of a module's state dicts (`choose_root`), or of the nested states of optimizers and others
(`choose_part`).

A path leads through mappings, lists, tuples and values of unknown classes, whatever it is that is looked for.

`root="auto"` of a module is, in this order:

1. the file itself, if it is a root;
2. the only root that is not an optimizer's; in a file of nothing else, the only optimizer's;
3. of several, the one whose last key is in `PREFERRED`, nearest to the top and then in the order of that list. Averages (a
   step of the path that says `ema`, `swa` or `average`) are no model's default where there is another.

Anything else is ambiguous, and the choices are listed: a generator beside a discriminator is nobody's default.

`root="auto"` of any other object is the file itself if it fits, else the only part that does, or the only one nearest to the
top.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from statedict.state import StateDict, arguments, nearest, raw_values

from ...errors import RootError
from ._roots import DEEPEST, holds_state, is_optimizer, is_state, is_tensor, parts, search

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


def choose_root(roots: Mapping[str, StateDict], root: str, file: str | None = None, *, tree: Any = None) -> StateDict:
    """The root at a path, or the one that `"auto"` means; raises RootError, with the choices, where there is none.

    A path in `tree` under which there are only nested dicts of tensors is a state dict with dotted names.

    >>> import numpy as np
    >>> from statedict.formats import find_roots
    >>> tree = {"model": {"encoder": {"weight": np.ones(2)}, "head": {"bias": np.ones(1)}}}
    >>> list(choose_root(find_roots(tree), "model", tree=tree))
    ['encoder.weight', 'head.bias']
    """
    arguments.texts(root=root)
    if root != "auto":
        state = roots[root] if root in roots else _dotted(part_at(tree, root))
        if state is not None:
            return state
        raise RootError(f"it holds no state dict at {root!r}{_meant(roots, root)}", file=file, choices=list(roots))
    if not roots:
        raise RootError("it holds no state dict", file=file)
    models = {path: state for path, state in roots.items() if not is_optimizer(state)} or roots
    chosen = "" if "" in models else next(iter(models)) if len(models) == 1 else _preferred(models)
    if chosen is None:
        kind = "optimizers' states" if models is roots and is_optimizer(next(iter(roots.values()))) else "state dicts"
        raise RootError(f"it holds several {kind}, and none is called the model's", file=file, choices=list(roots))
    return models[chosen]


def choose_part(tree: Any, root: str, fits: Callable[[Any], bool] | None, file: str | None = None) -> Any:
    """The part of a tree at a path, or the one that `"auto"` means, where `fits` tells a state of the kind looked for.

    `fits` None: the state of an object of an unknown kind, which is a mapping, or the whole tree where that holds none.

    An optimizer's state with dotted names, as a Checkpoint gives it, is taken too. Raises RootError, with the choices,
    where there is no such part, or several.
    """

    def found(value: Any) -> Any:
        value = _nested(value)
        return value if (isinstance(value, Mapping) if fits is None else fits(value)) else None

    arguments.texts(root=root)
    if root != "auto":
        part = part_at(tree, root)
        if part is None and root:
            known = [key for key, part in parts(tree) if found(part) is not None] or list(dict(search(tree, found)))
            raise RootError(f"there is nothing at {root!r}{_near(root, known)}", file=file, choices=known)
        return _nested(part)
    states = dict(search(tree, found))
    top = min((path.count("/") for path in states), default=0)
    chosen = [path for path in states if path.count("/") == top]
    if "" in states or len(chosen) == 1:
        return states[chosen[0]]
    if fits is None and not states:
        return tree
    reason = "several parts could be meant" if chosen else "no part of it has the state of such an object"
    raise RootError(reason, file=file, choices=list(states))


def part_at(tree: Any, path: str) -> Any:
    """What lies at a path in a tree; None where there is nothing. A key may have a `/` in it."""
    waiting = [(path, tree)] if path else []
    while waiting:
        rest, value = waiting.pop()
        for key, part in parts(value):
            if key == rest:
                return part
            if rest.startswith(f"{key}/"):
                waiting.append((rest[len(key) + 1 :], part))
    return None if path else tree


def _dotted(tree: Any) -> StateDict | None:
    """Nested containers of nothing but tensors as one state, its names joined by dots; None where there is anything else."""
    values: dict[str, Any] = {}
    waiting: list[tuple[tuple[str, ...], Any, bool]] = [((), tree, False)]
    while waiting:
        path, value, leaf = waiting.pop()
        if leaf:
            values[".".join(path)] = value
            continue
        if not isinstance(value, (Mapping, list, tuple)) or is_optimizer(value) or len(path) > DEEPEST:
            return None
        inside = dict(parts(value))
        if len(inside) != len(value):
            return None  # something has no name, or two things have one
        # Beside its tensors a state may have other values, such as the extra state of a module.
        state = is_state(value)
        leaves = [is_tensor(part) or (state and not holds_state(part)) for part in inside.values()]
        waiting.extend(reversed([((*path, key), part, leaf) for (key, part), leaf in zip(inside.items(), leaves)]))
    return StateDict(values) if any(map(is_tensor, values.values())) else None


def _nested(value: Any) -> Any:
    """An optimizer's state with dotted names (`state.0.exp_avg`) as the optimizer gave it; anything else as it is."""
    if not isinstance(value, Mapping) or "param_groups" not in value or "state" in value:
        return value
    values = dict(raw_values(value))
    groups = values.pop("param_groups")
    if not isinstance(groups, (list, tuple)) or not all(str(name).startswith("state.") for name in values):
        return value
    numbers = {str(n): n for group in groups if isinstance(group, Mapping) for n in group.get("params", ())}
    state: dict[Any, Any] = {}
    for name, entry in values.items():
        rest = name.removeprefix("state.")
        key = next((head for head in _heads(rest) if head in numbers), rest.partition(".")[0])
        state.setdefault(numbers.get(key, key), {})[rest[len(key) + 1 :]] = entry
    return {"state": state, "param_groups": groups}


def _heads(name: str) -> list[str]:
    """What a name may begin with, cut at its dots, the shortest first."""
    places = [place for place, character in enumerate(name) if character == "."]
    return [name[:place] for place in places]


def _meant(roots: Mapping[str, StateDict], root: str) -> str:
    """A hint at what else `root` may mean: a root of nearly that path, or a module inside one."""
    holding = [path for path, state in roots.items() if any(name.startswith(f"{root}.") for name in state)]
    if root and holding:
        inside = f" of {holding[0]!r}" if holding[0] else ""
        return f"; {root!r} is a module{inside}: load it with include={root!r}, rename='{root}.{{*p}} -> {{*p}}'"
    return _near(root, list(roots))


def _near(root: str, known: list[str]) -> str:
    near = nearest(root, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


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
