"""A checkpoint's states go back into the objects: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from statedict import _api, _loading
from statedict.errors import UnknownNameError
from statedict.state import nearest

from . import _distributed, _objects, _world


def restore(
    path: Path,
    held: Mapping[str, str],
    objects: Mapping[str, Any],
    options: Mapping[str, Mapping[str, Any]],
    loaded: Callable[[str], None],
) -> dict[str, Any]:
    """Load each object's state (`held`: object name → file) into it; the reports, by name.

    Every load is tried before the first is done. `loaded` is called with the file of each object that is.

    Raises UnknownNameError for an object that the checkpoint does not hold, TypeError for one that cannot take a state.
    """
    for name in (*objects, *options):
        if name not in held or name not in objects:
            among = "the checkpoint" if name in objects else "the objects given"
            raise UnknownNameError(name, among=among, near=nearest(name, list(held), 3) or sorted(held))
    for name, value in objects.items():
        if not _objects.is_stateful(value):
            raise TypeError(
                f"{name!r} is a {type(value).__name__}, which takes no state; plain values come back in .values"
            )
    chosen = {name: _options(value, objects) | dict(options.get(name, {})) for name, value in objects.items()}
    together = {name: chosen[name] for name, value in objects.items() if _is_together(value, path / held[name])}
    alone = {name: value for name, value in objects.items() if name not in together}

    def check() -> None:
        for name, value in alone.items():
            report = _api.load_state_dict(value, path / held[name], **{**chosen[name], "dry_run": True})
            _loading.refuse(report, type(value).__name__, chosen[name].get("strict", True))

    _distributed.restore(path, held, objects, together, check)
    for name in together:
        loaded(held[name])
    reports = {}
    for name, value in alone.items():
        reports[name] = _api.load_state_dict(value, path / held[name], **chosen[name])
        loaded(held[name])
    return reports


def _is_together(value: Any, saved: Path) -> bool:
    """Whether ranks load it together. One process reads a module that several wrote as it reads any other file."""
    return saved.is_dir() and (_world.world()[1] > 1 or _objects.is_optimizer(value))


def stored_values(path: Path, held: Mapping[str, str]) -> dict[str, Any]:
    """The values that did not fit into the manifest."""
    return dict(_api.load(path / held[_objects.VALUES])) if _objects.VALUES in held else {}


def _options(value: Any, objects: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state is matched by the names that the models give to its parameters."""
    if not _objects.is_optimizer(value):
        return {}
    model = _objects.owner(value, objects)
    return {} if model is None else {"model": model}
