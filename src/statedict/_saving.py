"""Save a tree, by one process or by all that have parts of its tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from statedict.errors import PartError
from statedict.state import Parts, every, leaf_of, raw_values

from . import _sources


def save(tree: Any, path: Any, options: dict[str, Any]) -> None:
    """Write a tree to a path; `options` are those of `formats.write`.

    Objects in the tree are saved as their states. A tree with DTensors is saved together by all ranks that hold them.
    """
    from statedict import formats

    tree, of = _sources.saved(tree), _sources.States().of
    if "torch.distributed.tensor" in sys.modules:
        from statedict.torch import joint_save

        joint = joint_save(_values(tree, of), lambda value: _name_of(tree, value, of))
        if joint is not None:
            joint.save(lambda writer: formats.write(tree, path, substitute=of, together=writer, **options), path)
            return
    try:
        formats.write(tree, path, substitute=of, **options)
    except PartError as error:
        raise _named(error, tree, of) from error.__cause__


def _values(tree: Any, of: Callable[[Any], Any]) -> Iterator[Any]:
    """Iterate over the values in a tree and in the states of its objects, in an order that depends on their places only."""
    for value in every(tree):
        given = of(value)
        if given is value:
            yield value
        else:
            yield from _values(given, of)


def _named(error: PartError, tree: Any, of: Callable[[Any], Any]) -> PartError:
    """Return the error with the name of the tensor."""
    for value in () if error.where else _values(tree, of):
        leaf = leaf_of(value)
        if isinstance(leaf, Parts) and (leaf.spec.shape, leaf.placement) == (error.shape, error.placement):
            return PartError(error.shape, error.placement, error.here, error.needed, _name_of(tree, value, of))
    return error


def _name_of(tree: Any, wanted: Any, of: Callable[[Any], Any]) -> str:
    """Return the place of a value in a tree, such as `model/layers.0.weight`."""
    waiting: list[tuple[str, Any]] = [("", tree)]
    seen = set[int]()
    for name, value in waiting:
        if value is wanted:
            return name
        given = of(value)
        if id(given) not in seen:
            seen.add(id(given))
            waiting += [(f"{name}/{key}" if name else str(key), part) for key, part in _inside(given)]
    return "a tensor"


def _inside(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return raw_values(value).items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()
