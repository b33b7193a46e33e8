"""The arguments of `save` and `resume`: objects with a state, alone or in lists and mappings, and plain values.

An object that has `state_dict` and `load_state_dict` is saved in a file of its own. A value that JSON preserves exactly is
saved in the manifest if it is small; other values are saved in `values.pt`.
"""

from __future__ import annotations

import json
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import accumulate
from typing import Any, NamedTuple

from statedict import _api, _sources
from statedict.formats.runs import LARGEST_STEP, survives
from statedict.state import StateDict, arguments, library_of

from . import _generators, _names, _random

# The maximum nesting depth at which objects are searched for.
DEEPEST = 20
# The characters of JSON that all plain values of a checkpoint may have in its manifest.
LONGEST = 64 << 10
_SIMPLE = {int, float, str, bool, bytes, complex, type(None)}


class SortedArguments(NamedTuple):
    """The keyword arguments of a save, by where they are saved.

    Attributes:
        stateful: the objects with a state, by name: `model`, `optimizers/0`.
        plain: values saved in the manifest.
        other: values saved in a file of their own.
    """

    stateful: dict[str, Any]
    plain: dict[str, Any]
    other: dict[str, Any]


def checked_step(step: Any) -> int:
    """The step as an int; raises ValueError if it is not an integer or too large for a directory name."""
    try:
        number = None if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = None
    if number is None or not 0 <= number <= LARGEST_STEP:
        raise ValueError(f"step must be an integer from 0 to {LARGEST_STEP:,}, not {step!r}")
    return number


def sort(arguments: Mapping[str, Any]) -> SortedArguments:
    """Separate objects from values; raises ValueError for an invalid object name."""
    result = SortedArguments({}, {}, {})
    for name, value in arguments.items():
        if name in _names.OWN:
            _names.check(name)
        inside = within(name, value)
        result.stateful.update(inside)
        if is_stateful(value):
            continue
        rest = _without_objects(value) if _holds_state(value) else value
        if inside and not _has_content(rest):
            continue
        (result.plain if survives(rest) else result.other)[name] = rest
    for name in _too_many(result.plain):
        result.other[name] = result.plain.pop(name)
    return result


def _too_many(plain: Mapping[str, Any]) -> list[str]:
    """The largest of the values, if they are too large together for the manifest, which is read often."""
    sizes = {name: len(json.dumps(value)) for name, value in plain.items()}
    smallest_first = sorted(sizes, key=sizes.__getitem__)
    totals = zip(smallest_first, accumulate(sizes[name] for name in smallest_first))
    return [name for name, total in totals if total > LONGEST]


def within(name: str, value: Any) -> dict[str, Any]:
    """The objects with a state in an argument, by name: the argument itself, or those in its lists and mappings.

    Raises ValueError for an object without a name (in a set, under a key that is neither a string nor an integer), and for
    nesting that is too deep.
    """
    found: dict[str, Any] = {}
    if _holds_state(value):
        for path, each in _walk(_part("the arguments", name), value, 0):
            _names.check(path)
            if path in found:
                raise ValueError(f"two objects have the same name {path!r}; use other keys in their mapping")
            found[path] = each
    return found


def flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The objects to resume into, by name; raises TypeError for an argument that contains none."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        _names.check_reserved(name)
        inside = within(name, value)
        if not inside and not (_is_container(value) and not value):
            raise TypeError(
                f"{name!r} is a {type(value).__name__}, which has no load_state_dict(); "
                "resume() returns plain values in `.values`"
            )
        found.update(inside)
    return found


def _walk(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if is_stateful(value):
        yield path, _generators.GeneratorState(value) if _generators.is_generator(value) else value
    elif _is_container(value):
        if depth == DEEPEST:
            raise ValueError(
                f"{path!r}: objects with a state are nested more than {DEEPEST} levels deep, or a container contains itself"
            )
        for key, part in _children(value):
            if _holds_state(part):
                yield from _walk(f"{path}/{_part(path, key)}", part, depth + 1)


def _part(path: str, key: Any) -> str:
    if isinstance(key, str):
        if "/" in key:
            raise ValueError(f"{key!r} in {path} is not a valid object name: '/' separates the parts of a name")
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    where = "is in a set" if key is None else f"is under the key {key!r}"
    raise ValueError(f"an object in {path} {where}, so it has no name: use a list, or a mapping with strings as keys")


def _is_container(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple, deque, set, frozenset)) and not isinstance(value, StateDict)


def _children(value: Any) -> Iterable[tuple[Any, Any]]:
    """The (key, value) pairs of a container. The key is None for the elements of a set."""
    if isinstance(value, Mapping):
        return value.items()
    return ((None, part) for part in value) if isinstance(value, (set, frozenset)) else enumerate(value)


def _holds_state(value: Any) -> bool:
    """Whether a value or anything in it has a state."""
    return any(
        type(part) not in _SIMPLE and library_of(part) is None and _has_state(part) for part in _innermost(value)
    )


def _innermost(value: Any) -> Iterator[Any]:
    """Yield the values in containers, at any depth, that are not containers themselves, or have a state."""
    stack, seen = [value], set[int]()
    while stack:
        part = stack.pop()
        if type(part) in _SIMPLE or not _is_container(part) or _has_state(part):
            yield part
        elif id(part) not in seen:
            seen.add(id(part))
            stack.extend(each for _, each in _children(part))


def _without_objects(value: Any) -> Any:
    """The value with None in place of its objects. An object that has only `state_dict` is replaced by its state."""
    if is_stateful(value):
        return None
    if _has_state(value):
        return value.state_dict()
    if not _is_container(value) or not _holds_state(value):
        return value
    if isinstance(value, Mapping):
        return {key: _without_objects(part) for key, part in value.items()}
    made = [_without_objects(part) for part in value]
    return tuple(made) if isinstance(value, tuple) else made


def differs_by_rank(value: Any) -> bool:
    """Whether an object has a state of its own on each rank, whose keys name the rank: a save merges those of all."""
    return getattr(value, "differs_by_rank", False) is True


def _has_content(rest: Any) -> bool:
    """Whether it contains anything besides containers and None."""
    return any(part is not None for part in _innermost(rest))


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as they are saved in the manifest; raises TypeError for one that JSON does not preserve."""
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"metrics must be a mapping of names to numbers, not {arguments.described(metrics)}; pass objects by name: "
            "save(step, model=model)"
        )
    found = {}
    for name, value in metrics.items():
        number = _number(value)
        if not isinstance(name, str) or not survives(number):
            raise TypeError(
                f"the metric {name!r} has the type {type(value).__name__}: a metric must be a number, and its name a string"
            )
        found[name] = deepcopy(number)
    return found


def _number(value: Any) -> Any:
    """An array or tensor of one element as a number; any other value as it is."""
    try:
        return value.item() if callable(getattr(value, "item", None)) else value
    except (RuntimeError, ValueError):
        return value


def is_stateful(value: Any) -> bool:
    """Whether the value has a state to save and load, as modules, optimizers, schedulers, scalers and generators do."""
    has_methods = _has_method(value) and callable(getattr(value, "load_state_dict", None))
    return has_methods or _generators.is_generator(value)


def _has_state(value: Any) -> bool:
    return _has_method(value) or _generators.is_generator(value)


def _has_method(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and not isinstance(value, type)


def states(given: SortedArguments, *, random: bool, copied: bool = False) -> dict[str, Any]:
    """The content of each file: the live state of each object, the values that JSON cannot represent, the random state.

    `copied`: the caller copies the states at once, so they may contain the parameters themselves.
    """
    read = reader(copied=copied)
    found = {name: read(value, owner_of(value, given.stateful)) for name, value in given.stateful.items()}
    if given.other:
        found[_names.VALUES] = given.other
    if random:
        found[_names.RANDOM] = _random.read()
    return found


def reader(*, copied: bool) -> Callable[[Any, Any], Any]:
    """The function that reads the state of an object, and of an optimizer of a model. `copied`: as in `states`."""
    return _sources.to_copy if copied else lambda value, model: _api.state_dict(value, model=model)


def owner(optimizer: Any, objects: Mapping[str, Any]) -> Any | None:
    """The object that has most of the optimizer's parameters, and so their names."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found = {
        name: len(held.intersection(map(id, value.parameters())))
        for name, value in objects.items()
        if callable(getattr(value, "named_parameters", None))
    }
    first = max(found, key=found.__getitem__, default=None)
    return objects[first] if first is not None and found[first] else None


def owner_of(value: Any, objects: Mapping[str, Any]) -> Any | None:
    """The object that has the parameters, if `value` is an optimizer; else None."""
    return owner(value, objects) if is_optimizer(value) else None


def is_optimizer(value: Any) -> bool:
    return hasattr(value, "param_groups") and is_stateful(value)
