"""Choose the root that a caller means: a state dict for a module (`choose_root`), or a nested state for optimizers and
other objects (`choose_part`).

A path leads through mappings, lists, tuples and values of unknown classes in either case.

`root="auto"` for a module selects, in this order:

1. the file itself, if it is a root;
2. the only root that is not an optimizer state, or the state of a random generator, a scheduler …; if there are only
   such states, the only one;
3. of several, the one whose last key is in `PREFERRED`, nearest to the top and then in the order of that list. Averages
   (a step of the path contains `ema`, `swa` or `average`) are chosen only if nothing else is there.

Anything else is ambiguous, and the error lists the choices: of a generator and a discriminator neither is the default.

`root="auto"` for any other object selects the file itself if it fits, else the only part that does, or the only such
part at the highest level.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from statedict.state import StateDict, arguments, nearest, raw_values

from ...errors import RootError
from ._roots import DEEPEST, holds_state, is_optimizer, is_state, is_tensor, parts, search

# Names of the model in a training checkpoint: Lightning, timm, mmengine; accelerate and most scripts; fairseq,
# detectron2, YOLO; DeepSpeed; nnU-Net; BasicSR; Stable-Baselines3 …
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
    "policy",
)
# State of a training beside the model's, by the first step of the path.
BESIDE = re.compile(r"(?:random|rng|optimizers?|(?:lr_)?schedulers?|scaler|sampler|values)(?:_[0-9]+)?")
_AVERAGE = re.compile(r"(?:\A|[^a-z])(?:ema|swa|averaged?)(?:[^a-z]|\Z)", re.IGNORECASE)


def choose_root(
    roots: Mapping[str, StateDict],
    root: str,
    file: str | None = None,
    *,
    tree: Any = None,
    unopened: Mapping[str, Exception] = MappingProxyType({}),
) -> StateDict:
    """Return the root at a path, or the one that `"auto"` selects; raise RootError, with the choices, if it is missing.

    A path in `tree` that contains only nested dicts of tensors is a state dict with dotted names. `unopened`: roots that
    exist but cannot be read, and why.

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
        _require_opened(unopened, root, file, roots)
        raise RootError(f"no state dict at {root!r}{_hint(roots, root)}", file=file, choices=list(roots))
    if not roots:
        raise RootError(f"the source contains no state dict{_reasons(unopened)}", file=file)
    # A root that cannot be read is a candidate too: another one must not silently take its place.
    known = {**roots, **dict.fromkeys(unopened, StateDict())}
    models = candidates(known)
    chosen = "" if "" in models else next(iter(models)) if len(models) == 1 else _preferred(models)
    if chosen is not None:
        _require_opened(unopened, chosen, file, roots)
    else:
        kind = "optimizers' states" if all(map(is_optimizer, models.values())) else "state dicts"
        raise RootError(
            f"the file contains several {kind}, and no name marks one as the model's{_reasons(unopened)}",
            file=file,
            choices=list(roots),
        )
    return models[chosen]


def candidates(roots: Mapping[str, StateDict]) -> Mapping[str, StateDict]:
    """Return the roots that may be a model's; all of them if none may.

    >>> list(candidates({"net": StateDict(), "random/torch": StateDict(), "optimizer": StateDict({"param_groups": []})}))
    ['net']
    """
    plain = {path: state for path, state in roots.items() if not is_optimizer(state)} or roots
    return {path: state for path, state in plain.items() if not BESIDE.fullmatch(path.partition("/")[0])} or plain


def choose_part(
    tree: Any,
    root: str,
    fits: Callable[[Any], bool] | None,
    file: str | None = None,
    *,
    required: bool = True,
    unopened: Mapping[str, Exception] = MappingProxyType({}),
) -> Any:
    """Return the part of a tree at a path, or the one that `"auto"` selects; `fits` recognises the kind of state
    wanted.

    `fits` None: the state of an object of unknown kind, which is a mapping, or the whole tree if it contains none.
    `required` False: the same if `fits` accepts nothing. `unopened`: parts that exist but cannot be read, and why.

    An optimizer state with dotted names, as a Checkpoint returns it, is accepted too. Raises RootError, with the
    choices, if none or several fit.
    """

    def found(value: Any) -> Any:
        value = _nested(value)
        return value if (isinstance(value, Mapping) if fits is None else fits(value)) else None

    arguments.texts(root=root)
    if root != "auto":
        part = part_at(tree, root)
        if part is None and root:
            _require_opened(unopened, root, file, ())
            known = [key for key, part in parts(tree) if found(part) is not None] or list(dict(search(tree, found)))
            raise RootError(f"the source contains nothing at {root!r}{_near(root, known)}", file=file, choices=known)
        return _nested(part)
    states = dict(search(tree, found))
    top = min((path.count("/") for path in states), default=0)
    chosen = [path for path in states if path.count("/") == top]
    if "" in states or len(chosen) == 1:
        return states[chosen[0]]
    if fits is None and not states:
        return tree
    if not (states or required or unopened):
        return choose_part(tree, root, None, file)
    reason = "several parts of the source fit" if chosen else "the source contains no state of this kind of object"
    raise RootError(f"{reason}{_reasons(unopened)}", file=file, choices=list(states))


def part_at(tree: Any, path: str) -> Any:
    """Return the part at a path in a tree; None if it does not exist. A key may contain `/`."""
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
    """Flatten nested containers of tensors to one state with dotted names; None if they contain anything else."""
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
            return None  # a key cannot be named, or a name occurs twice
        # A state may contain other values beside tensors, such as the extra state of a module.
        state = is_state(value)
        leaves = [is_tensor(part) or (state and not holds_state(part)) for part in inside.values()]
        waiting.extend(reversed([((*path, key), part, leaf) for (key, part), leaf in zip(inside.items(), leaves)]))
    return StateDict(values) if any(map(is_tensor, values.values())) else None


def _nested(value: Any) -> Any:
    """Return an optimizer state with dotted names (`state.0.exp_avg`) in the optimizer's own nested form; others
    unchanged.
    """
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
        key = next((head for head in _prefixes(rest) if head in numbers), rest.partition(".")[0])
        state.setdefault(numbers.get(key, key), {})[rest[len(key) + 1 :]] = entry
    return {"state": state, "param_groups": groups}


def _prefixes(name: str) -> list[str]:
    """Return the dotted prefixes of a name, the shortest first."""
    places = [place for place, character in enumerate(name) if character == "."]
    return [name[:place] for place in places]


def _require_opened(unopened: Mapping[str, Exception], root: str, file: str | None, choices: Collection[str]) -> None:
    """Raise RootError if a path is, or is in, a part that cannot be read."""
    above = next((path for path in unopened if f"{root}/".startswith(f"{path}/")), None)
    if above is not None:
        error = unopened[above]
        raise RootError(f"{above!r} cannot be read: {error}", file=file, choices=list(choices)) from error


def _reasons(unopened: Mapping[str, Exception]) -> str:
    return "".join(f"; {root!r} cannot be read: {error}" for root, error in unopened.items())


def _hint(roots: Mapping[str, StateDict], root: str) -> str:
    """Return a hint about what `root` may mean: a root with a similar path, or a module inside one."""
    holding = [path for path, state in roots.items() if any(name.startswith(f"{root}.") for name in state)]
    if root and holding:
        inside = f" of {holding[0]!r}" if holding[0] else ""
        return f"; {root!r} is a module{inside}: load it with include={root!r}, rename='{root}.{{*p}} -> {{*p}}'"
    return _near(root, list(roots))


def _near(root: str, known: list[str]) -> str:
    near = nearest(root, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _preferred(models: Mapping[str, StateDict]) -> str | None:
    """Return the path selected by the rule of preference, or None if it selects no single one."""
    plain = [path for path in models if not _AVERAGE.search(path)]
    if len(plain) == 1:
        return plain[0]
    ranks = {path: rank for path in plain if (rank := _rank(path)) is not None}
    ordered = sorted(ranks, key=lambda path: ranks[path])
    if not ordered or (len(ordered) > 1 and ranks[ordered[0]] == ranks[ordered[1]]):
        return None
    return ordered[0]


def _rank(path: str) -> tuple[int, int] | None:
    """Return (depth, index of the last key in PREFERRED), or None if the last key is not a known model name."""
    steps = path.split("/")
    return (len(steps), PREFERRED.index(steps[-1])) if steps[-1] in PREFERRED else None
