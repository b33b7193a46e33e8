"""Find numbered modules of which only some have tensors left over: their numbers do not say which of them correspond."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from statedict.state import parents

from ._nodes import numbers, pattern


def uneven(names: Iterable[str], left: Iterable[str]) -> set[str]:
    """Return the families of modules in `names` whose members differ in what is `left` over of them.

    >>> uneven(["h.0.a", "h.0.b", "h.1.a", "h.1.b"], ["h.1.b"])
    {'h.#'}
    >>> uneven(["h.0.a", "h.0.b", "h.1.a", "h.1.b"], ["h.0.b", "h.1.b"])
    set()
    """
    rests: dict[str, dict[str, set[str]]] = {}
    for name in left:
        for family, module in _members(name):
            rests.setdefault(family, {}).setdefault(module, set()).add(name.removeprefix(module))
    for name in names:
        for family, module in _members(name):
            if family in rests:
                rests[family].setdefault(module, set())
    return {family for family, modules in rests.items() if len(set(map(frozenset, modules.values()))) > 1}


def families(name: str) -> set[str]:
    """Return the families that a name and the modules above it are in, as `h.#` for `h.0`."""
    return {family for family, _ in _members(name)}


def _members(name: str) -> Iterator[tuple[str, str]]:
    for path in (name, *parents(name)):
        above, dot, last = path.rpartition(".")
        if numbers(last):
            yield above + dot + pattern(last), path
