"""A checkpoint of several processes: all write their parts, and one rename by rank 0 makes it one.

Modules and optimizers are written by torch.distributed.checkpoint; whatever else has a state is rank 0's. Every rank keeps
its own random state. What fails on one rank fails on all, and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from statedict import _api
from statedict.errors import StateDictError

from . import _directory, _objects, _random, _save
from ._objects import Sorted
from ._progress import Meter
from ._world import world as world

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
    path = on_first(lambda: _directory.begin(directory, content.step))
    sharded = {name: value for name, value in given.stateful.items() if is_sharded(value)}
    try:
        _on_all(lambda: _write_part(path, sharded, random=random))
        others = {name: name for name in sharded}
        on_first(lambda: _save.complete(directory, path, content, others, Meter(""), durable=durable))
    except BaseException:
        if world()[0] == 0:
            with suppress(OSError):
                _directory.abandon(path)
        raise


def is_sharded(value: Any) -> bool:
    """Whether the ranks save a value together: a torch module or optimizer."""
    return _objects.is_optimizer(value) or callable(getattr(value, "named_parameters", None))


def restore(value: Any, path: Path, objects: Mapping[str, Any]) -> None:
    """Load a directory that several ranks wrote into a module or optimizer."""
    from statedict.torch import read_sharded

    read_sharded(value, path, _objects.owner(value, objects) if _objects.is_optimizer(value) else None)


def _write_part(path: Path, sharded: Mapping[str, Any], *, random: bool) -> None:
    from statedict.torch import write_sharded

    for name, value in sharded.items():
        write_sharded(value, path / name, _objects.owner(value, sharded) if _objects.is_optimizer(value) else None)
    if random:
        _api.save(_random.read(), path / _random.file_of(world()[0]))


def _on_all(act: Callable[[], None]) -> None:
    """Do it on every rank; raise on every rank where it raised on any."""
    from statedict.torch import from_all

    error: BaseException | None = None
    try:
        act()
    except Exception as caught:  # noqa: BLE001  # as above
        error = caught
    told = from_all(None if error is None else str(error))
    if error is not None:
        raise error
    failed = [f"rank {rank}: {text}" for rank, text in enumerate(told) if text is not None]
    if failed:
        raise StateDictError(f"the checkpoint was not saved: {'; '.join(failed)}")
