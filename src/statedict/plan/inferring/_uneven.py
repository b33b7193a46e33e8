"""Find modules that would be equal if no tensors had been removed from them or were left over in them.

The removed or remaining tensors distinguish such modules, but do not say which of them correspond.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from statedict.state import parents

from ..operations._specs import Shape
from ._classes import LAYER
from ._nodes import Entries, bare_shape, numbers, pattern


def uneven(names: Iterable[str], left: Iterable[str]) -> set[str]:
    """Return the families of modules in `names` whose members differ in what is `left` over of them.

    >>> uneven(["h.0.a", "h.0.b", "h.1.a", "h.1.b"], ["h.1.b"])
    {'h.#'}
    >>> uneven(["h.0.a", "h.0.b", "h.1.a", "h.1.b"], ["h.0.b", "h.1.b"])
    set()
    """
    rests: dict[str, dict[str, set[str]]] = {}
    for name in left:
        for family, module in members(name):
            rests.setdefault(family, {}).setdefault(module, set()).add(name.removeprefix(module))
    for name in names:
        for family, module in members(name):
            if family in rests:
                rests[family].setdefault(module, set())
    return {family for family, modules in rests.items() if len(set(map(frozenset, modules.values()))) > 1}


def told_apart(before: Entries, after: Entries) -> set[str]:
    """Return the modules that have the same shapes as another module in `before`, and do not in `after`, a part of it."""
    if len(before) == len(after):
        return set()
    contents, rests = _contents(before), _contents(after)
    equal: dict[Hashable, list[str]] = {}
    for path, content in contents.items():
        if len(content) > LAYER:
            equal.setdefault(content, []).append(path)
    return {path for paths in equal.values() if len({rests.get(path) for path in paths}) > 1 for path in paths}


def _contents(entries: Entries) -> dict[str, tuple[Shape, ...]]:
    """Return the shapes of the tensors in each module, in a fixed order."""
    found: dict[str, list[Shape]] = {}
    for name, shape in entries:
        for path in parents(name):
            found.setdefault(path, []).append(bare_shape(shape))
    return {path: tuple(sorted(shapes)) for path, shapes in found.items()}


def families(name: str) -> set[str]:
    """Return the families that a name and the modules above it are in, as `h.#` for `h.0`."""
    return {family for family, _ in members(name)}


def members(name: str) -> Iterator[tuple[str, str]]:
    """Return the numbered modules that a name is in, each after its family."""
    for path in (name, *parents(name)):
        above, dot, last = path.rpartition(".")
        if numbers(last):
            yield above + dot + pattern(last), path
