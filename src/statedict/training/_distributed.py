"""A checkpoint of several processes: all write their parts, and one rename by rank 0 makes it one.

Modules and optimizers are written by torch.distributed.checkpoint; whatever else has a state is rank 0's. Every rank keeps
its own random state. What fails on one rank fails on all, and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from statedict import _api
from statedict.errors import AfterSaveError, StateDictError

from . import _directory, _names, _objects, _random, _save
from ._objects import Sorted
from ._progress import Meter
from ._world import world as world

if TYPE_CHECKING:
    from statedict.plan import LoadReport

T = TypeVar("T")


def on_first(act: Callable[[], T]) -> T:
    """What `act` gives on rank 0, on every rank; raises on every rank where it raises there."""
    from statedict.torch import from_first

    result: Any = None
    error: BaseException | None = None
    if world()[0] == 0:
        try:
            result = act()
        except Exception as caught:  # noqa: BLE001  # every rank must hear of it before it is raised
            error = caught
    result, text = from_first((result, None if error is None else str(error)))
    if error is not None:
        raise error
    if text is not None:
        raise StateDictError(f"rank 0 failed: {text}")
    return result  # type: ignore[no-any-return]


def save(directory: Path, content: _save.Content, given: Sorted, *, random: bool, durable: bool) -> None:
    """Write a checkpoint of all ranks; `content` holds what rank 0 writes by itself."""
    sharded = {name: value for name, value in given.stateful.items() if is_sharded(value)}
    # Who has no state must say so before the others wait for its part.
    states = on_all(lambda: {name: _state(value, sharded) for name, value in sharded.items()})
    path = on_first(lambda: _directory.begin(directory, content.step))
    others = _names.stems(sharded)
    try:
        on_all(lambda: _write_part(path, {others[name]: state for name, state in states.items()}, random=random))
        on_first(lambda: _save.complete(directory, path, content, others, Meter(""), durable=durable))
    except AfterSaveError:
        raise
    except BaseException:
        if world()[0] == 0:
            with suppress(OSError):
                _directory.abandon(path)
        raise


def is_sharded(value: Any) -> bool:
    """Whether the ranks save a value together: a torch module or optimizer."""
    return _objects.is_optimizer(value) or callable(getattr(value, "named_parameters", None))


def check(
    path: Path, held: Mapping[str, str], objects: Mapping[str, Any], together: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The states of objects that several ranks wrote (`together`: object name → options), which are known to fit.

    Raises TypeError for an option other than `strict`, LoadError where one does not fit.
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
    """Load what `check` found to fit; the reports, by object name."""
    if not states:
        return {}
    from statedict.plan import LoadReport
    from statedict.torch import read_sharded

    # Before they are read: PyTorch renames in these states what it puts into a wrapped module.
    reports = {name: LoadReport(loaded=_loaded(objects[name], state)) for name, state in states.items()}
    for name, state in states.items():
        read_sharded(objects[name], state, path / held[name], _objects.owner_of(objects[name], objects))
    return reports


def _loaded(value: Any, state: Mapping[str, Any]) -> list[str]:
    """The names that were loaded: a module's, or those of the parameters whose state an optimizer has."""
    return list(state["state"] if _objects.is_optimizer(value) else state)


def _strict(name: str, options: Mapping[str, Any]) -> bool:
    others = sorted(options.keys() - {"strict", "model"})
    if others:
        raise TypeError(
            f"{name!r} is loaded by several ranks together, which takes no {', '.join(others)}: only strict"
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
        _api.save(_random.read(), path / _random.file_of(world()[0]), durable=False)


def on_all(act: Callable[[], T]) -> T:
    """What it gives on this rank, when it was done on all; raises on every rank where it raised on any."""
    result: Any = None
    error: BaseException | None = None
    try:
        result = act()
    except Exception as caught:  # noqa: BLE001  # as above
        error = caught
    if world()[1] > 1:
        from statedict.torch import from_all

        told = from_all(None if error is None else str(error))
        failed = [f"rank {rank}: {text}" for rank, text in enumerate(told) if text is not None]
        if failed and error is None:
            raise StateDictError("; ".join(failed))
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]
