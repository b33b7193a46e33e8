"""Several processes (ranks): what they do together in the training's thread, and which objects they save in parts.

Modules and optimizers are saved in parts, each rank its own; rank 0 saves all other objects. One rank saves a sharded model
in the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from statedict.errors import RankError, SaveError

from . import _objects
from ._objects import SortedArguments
from ._ranks import ranks

if TYPE_CHECKING:
    from statedict.torch import RankState

T = TypeVar("T")


def on_first(act: Callable[[], T]) -> T:
    """Run `act` on rank 0 and return its result on every rank; if it raises there, raise on every rank."""
    found: list[Any] = of_all(act if ranks()[0] == 0 else lambda: None)
    first: T = found[0]
    return first


def on_all(act: Callable[[], T]) -> T:
    """Run `act` on every rank and return this rank's result; if it raises on any rank, raise on all of them."""
    results: list[T] = []
    of_all(lambda: results.append(act()))
    return results[0]


def of_all(act: Callable[[], T]) -> list[T]:
    """Run `act` on every rank and return the results of all; if it raises on any rank, raise on all of them."""
    if ranks()[1] == 1:
        return [act()]
    from statedict.torch import Joint

    with Joint() as joint:
        return joint.agree(act())


def on_any(act: Callable[[], bool]) -> bool:
    """Run `act` on every rank and return whether it is true on any; if it raises on any rank, raise on all of them.

    One small collective: unlike the others, this function may be called at every step.
    """
    if ranks()[1] == 1:
        return act()
    from statedict.torch import gather

    answer, raised = False, None
    try:
        answer = act()
    except BaseException as error:  # noqa: BLE001  # raised once the other ranks know
        raised = error
    found: list[tuple[bool, str | None]] = gather(
        (answer, None if raised is None else f"{type(raised).__name__}: {raised}")
    )
    if raised is not None:
        raise raised
    failed = {rank: text for rank, (_, text) in enumerate(found) if text is not None}
    if failed:
        raise RankError(failed)
    return any(answer for answer, _ in found)


def is_needed(values: Iterable[Any]) -> bool:
    """Whether a save of these objects is one of all ranks: there are several, or an object is sharded."""
    return ranks()[1] > 1 or any(map(has_shards, values))


def split(given: SortedArguments) -> tuple[dict[str, Any], SortedArguments]:
    """Split the arguments of a save: the objects that are saved in parts, by name, and the rest, which rank 0 saves.

    Sharded objects are saved in parts, and so are the modules and optimizers of several ranks.
    """
    parts = {name: value for name, value in given.stateful.items() if _is_in_parts(value)}
    return parts, given._replace(stateful={n: value for n, value in given.stateful.items() if n not in parts})


def has_shards(value: Any) -> bool:
    """Whether a value is a PyTorch module or optimizer with sharded tensors, on any number of ranks."""
    if sys.modules.get("torch") is None:
        return False
    from statedict import torch as host

    return host.has_shards(value)


def _is_in_parts(value: Any) -> bool:
    if ranks()[1] == 1:
        return has_shards(value)
    return _objects.is_optimizer(value) or callable(getattr(value, "named_parameters", None))


def rank_states(objects: Mapping[str, Any], *, copied: bool) -> dict[str, RankState]:
    """This rank's part of each of the objects that are saved in parts. `copied`: as in `_objects.states`."""
    from statedict.torch import rank_state

    read = _objects.reader(copied=copied)
    return {name: rank_state(value, _objects.owner_of(value, objects), read) for name, value in objects.items()}


def refuse_shards(states: Mapping[str, Any]) -> None:
    """Raise SaveError if an object that rank 0 saves alone has sharded tensors, of which rank 0 has only parts."""
    from statedict.torch import holds_shards

    for name, state in states.items() if ranks()[1] > 1 else ():
        if holds_shards(state):
            raise SaveError(
                f"{name!r} has sharded tensors, and is neither a PyTorch module nor an optimizer, which are saved in parts: "
                "save a module, or full tensors (full_tensor())"
            )
