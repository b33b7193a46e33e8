"""Checkpoints of several processes (ranks): each writes its part, and rank 0 completes the checkpoint with one rename.

torch.distributed.checkpoint writes modules and optimizers; rank 0 writes all other objects. Every rank saves its own random
state. If one rank fails, all ranks raise, and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from statedict import _api
from statedict.errors import AfterSaveError

from . import _objects, _random
from ._objects import SortedArguments
from ._progress import Meter
from ._ranks import ranks as ranks
from .run_directory import _changes, _names
from .saving import _save

if TYPE_CHECKING:
    from statedict.plan import LoadReport

T = TypeVar("T")


def on_first(act: Callable[[], T]) -> T:
    """Run `act` on rank 0 and return its result on every rank; if it raises there, raise on every rank."""
    found: T = _together(act if ranks()[0] == 0 else lambda: None)[0]
    return found


def on_all(act: Callable[[], T]) -> T:
    """Run `act` on every rank and return this rank's result; if it raises on any rank, raise on all of them."""
    if ranks()[1] == 1:
        return act()
    results: list[T] = []
    _together(lambda: results.append(act()))
    return results[0]


def _together(act: Callable[[], Any]) -> list[Any]:
    """Run `act` on every rank and return the results of all; if it raises on any rank, raise on all of them."""
    from statedict.torch import Joint

    with Joint() as joint:
        return joint.agree(act())


def save(directory: Path, content: _save.Content, given: SortedArguments, *, random: bool, durable: bool) -> None:
    """Write a checkpoint of all ranks; `content` holds the part that only rank 0 writes."""
    sharded = {name: value for name, value in given.stateful.items() if is_sharded(value)}
    # An error here must reach all ranks before they wait for each other.
    states = on_all(lambda: {name: _state(value, sharded) for name, value in sharded.items()})
    path = on_first(lambda: _changes.begin(directory, content.step))
    others = _names.stems(sharded)
    try:
        on_all(lambda: _write_part(path, {others[name]: state for name, state in states.items()}, random=random))
        on_first(lambda: _save.complete(directory, path, content, others, Meter(""), durable=durable))
    except AfterSaveError:
        raise
    except BaseException:
        if ranks()[0] == 0:
            with suppress(OSError):
                _changes.abandon(path)
        raise


def is_sharded(value: Any) -> bool:
    """Whether the ranks save a value together: it is a PyTorch module or optimizer."""
    return _objects.is_optimizer(value) or callable(getattr(value, "named_parameters", None))


def check(
    path: Path, held: Mapping[str, str], objects: Mapping[str, Any], together: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the states of the objects in `together` (object name → options), after checking that the checkpoint fits them.

    Raises TypeError for an option other than `strict`, LoadError for an object that does not fit.
    """
    if not together:
        return {}
    from statedict.torch import check_sharded

    states = {}
    for name, options in together.items():
        states[name] = _state(objects[name], objects)
        module = not _objects.is_optimizer(objects[name])
        check_sharded(states[name], path / held[name], strict=module and _strict(name, options))
    return states


def read(
    path: Path, held: Mapping[str, str], objects: Mapping[str, Any], states: Mapping[str, dict[str, Any]]
) -> dict[str, LoadReport]:
    """Load the objects that `check` accepted; return the reports, by object name."""
    if not states:
        return {}
    from statedict.plan import LoadReport
    from statedict.torch import read_sharded

    # Built before reading, because PyTorch renames the entries of the state of a wrapped module.
    reports = {name: LoadReport(loaded=_loaded(objects[name], state)) for name, state in states.items()}
    for name, state in states.items():
        read_sharded(objects[name], state, path / held[name], _objects.owner_of(objects[name], objects))
    return reports


def _loaded(value: Any, state: Mapping[str, Any]) -> list[str]:
    """The names that were loaded: the module's, or those of the parameters whose state an optimizer has."""
    return list(state["state"] if _objects.is_optimizer(value) else state)


def _strict(name: str, options: Mapping[str, Any]) -> bool:
    others = sorted(options.keys() - {"strict", "model"})
    if others:
        raise TypeError(
            f"{name!r} was saved by several ranks; the only option for loading it is strict, not {', '.join(others)}"
        )
    return bool(options.get("strict", True))


def _state(value: Any, objects: Mapping[str, Any]) -> dict[str, Any]:
    from statedict.torch import sharded_state

    return sharded_state(value, _objects.owner_of(value, objects))


def _write_part(path: Path, states: Mapping[str, dict[str, Any]], *, random: bool) -> None:
    from statedict.torch import write_sharded

    for name, state in states.items():
        write_sharded(state, path / name)
    if random:
        _api.save(_random.read(), path / _random.file_of(ranks()[0]), durable=False)
