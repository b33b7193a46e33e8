"""`_metadata`: from module path to PyTorch's metadata of that module (its version).

When a state is filtered or renamed, its metadata is filtered or renamed in the same way, so that the version of a module
stays with its tensors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ._names import parents

Metadata = Mapping[str, Any]


def kept_with(metadata: Metadata, names: Iterable[str], kept: Iterable[str]) -> OrderedDict[str, Any]:
    """Return the entries of modules that still have a name, or never had one."""
    owners = {path for name in names for path in parents(name)}
    remaining = {path for name in kept for path in parents(name)}
    return OrderedDict((path, entry) for path, entry in metadata.items() if path in remaining or path not in owners)


def below(metadata: Metadata, path: str) -> OrderedDict[str, Any]:
    """Return the entries of the module at `path` and below, relative to it."""
    inside = f"{path}."
    return OrderedDict(
        (key.removeprefix(path).removeprefix("."), entry)
        for key, entry in metadata.items()
        if key == path or key.startswith(inside)
    )


def under(metadata: Metadata, path: str) -> OrderedDict[str, Any]:
    """Return the entries moved below the module path `path`; the partner of `below`."""
    return OrderedDict((f"{path}.{key}" if key else path, entry) for key, entry in metadata.items())


def renamed(metadata: Metadata, names: Mapping[str, str]) -> OrderedDict[str, Any]:
    """Return the entries moved in the same way as the names below them (`names`: old to new).

    A module moves with its names if their last components are unchanged; a module without names moves with its nearest
    parent that has moved.
    """
    moved: dict[str, str] = {}
    for old, new in names.items():
        for old_path, new_path in _moved_paths(old, new):
            moved.setdefault(old_path, new_path)
    moved.setdefault("", "")
    follow = _nearest_moved(moved)
    return OrderedDict((follow(path), entry) for path, entry in metadata.items())


def _moved_paths(old: str, new: str) -> list[tuple[str, str]]:
    old_parts, new_parts = old.split("."), new.split(".")
    pairs = []
    while old_parts and new_parts and old_parts[-1] == new_parts[-1]:
        old_parts.pop()
        new_parts.pop()
        pairs.append((".".join(old_parts), ".".join(new_parts)))
    return pairs


def _nearest_moved(moved: Mapping[str, str]) -> Callable[[str], str]:
    def follow(path: str) -> str:
        if path in moved:
            return moved[path]
        parent, _, child = path.rpartition(".")
        above = follow(parent) if path else ""
        return f"{above}.{child}" if above else child

    return follow
