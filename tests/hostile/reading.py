"""Reading all there is in a file: what every hostile case, damage law and fuzz target does with its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from statedict import formats
from statedict.errors import RootError
from statedict.formats.checkpoint._walk import leaves as all_leaves
from statedict.formats.storages._extent import Extent
from statedict.state import Compound, Leaf, Opaque, StateDict, library, materialize
from statedict.testing.format_laws._attempt import lies_within, names_file

Found = dict[str, Any]


def read_all(file: Any) -> Found:
    """Open, list, verify, and read every tensor; the arrays of the file's one state dict by name, where it has one.

    Raises whatever reading raises, AssertionError where a tensor does not lie within its storage.
    """
    with formats.open(file) as checkpoint:
        check_reach(checkpoint.object)
        leaves = list(leaves_of(checkpoint.object))
        repr([value for value in values_of(checkpoint.object) if isinstance(value, (Opaque, Leaf, Compound))])
        for found in (checkpoint.globals, checkpoint.notes, checkpoint.producer, checkpoint.format):
            str(found)
        arrays = materialize(leaves, library("numpy"))
        checkpoint.verify(values=True)
        by_leaf = {id(leaf): array for leaf, array in zip(leaves, arrays)}
        return {name: by_leaf.get(id(value), value) for name, value in _values(checkpoint)}


def _values(checkpoint: Any) -> Iterator[tuple[str, Any]]:
    try:
        state = checkpoint.state_dict()
    except RootError:
        return
    yield from raw(state).items()


def raw(state: StateDict) -> Mapping[str, Any]:
    return state._values


def check_reach(tree: Any) -> None:
    """Assert that each tensor lies within its storage, and each storage within its file."""
    for path, leaf in all_leaves(tree):
        storage = leaf.storage
        assert lies_within(leaf), path
        if isinstance(storage.where, Extent):
            extent, file = storage.where, storage.source.file
            assert extent.skip + storage.nbytes <= extent.nbytes, path
            if extent.inflate is None:
                assert 0 <= extent.offset <= extent.offset + extent.nbytes <= file.size, path


def leaves_of(tree: Any) -> Iterator[Leaf | Compound]:
    """Every tensor below a value, each once."""
    return (value for value in values_of(tree) if isinstance(value, (Leaf, Compound)))


def values_of(tree: Any) -> Iterator[Any]:
    """Every value below a value, each once; deep and cyclic ones included."""
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting += _parts(value)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, StateDict):
        return list(raw(value).values())
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values(), getattr(value, "_metadata", None)]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, Opaque):
        return [value.args, value.kwargs, value.state, value.items]
    return []


def is_clean_error(error: BaseException, path: Path) -> bool:
    """Whether it is ours, and names the file, or one beside it, and a reason."""
    return names_file(error, [str(path), f"{path.parent}/"]) and bool(error.reason)
