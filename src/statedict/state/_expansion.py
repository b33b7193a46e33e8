"""What tensors of files show, in proportion to what their storages hold.

A view can show one element a trillion times, and a file of a few hundred bytes any number of views of one storage. While
they are views they cost nothing; so this is asked where their elements are written out or computed with.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from ..errors import LimitError
from ._computed import COMPUTED
from ._leaf import Leaf
from ._spec import Spec
from ._values import Compound

# Bytes that may be shown whatever the storages hold.
FLOOR = 64 << 20


class _Shown(NamedTuple):
    """Of one source: the bytes of each view, and of each storage."""

    views: dict[tuple[Hashable, Spec], int]
    storages: dict[Hashable, int]


def require_in_proportion(tensors: Iterable[Leaf | Compound]) -> None:
    """Raise LimitError where tensors of a file together show more than `Limits.expansion` times what their storages hold
    (and more than 64 MiB). Tensors in memory, whose views somebody made here, are not limited."""
    sources: dict[int, tuple[Any, _Shown]] = {}
    for leaf in _read(tensors):
        source = leaf.storage.source
        if getattr(source, "expansion", None) is not None:
            _, shown = sources.setdefault(id(source), (source, _Shown({}, {})))
            shown.views[leaf.storage.key, leaf.spec] = leaf.spec.nbytes
            shown.storages[leaf.storage.key] = leaf.storage.nbytes
    for source, shown in sources.values():
        nbytes, held = sum(shown.views.values()), sum(shown.storages.values())
        if nbytes > max(FLOOR, source.expansion * held):
            raise LimitError(
                f"its tensors show {nbytes:,} bytes, but their storages hold {held:,}: writing them out, or computing with "
                f"them, is beyond the limit of {source.expansion} times",
                file=getattr(source, "name", None),
                hint="if you trust the file, statedict.open(path, limits=statedict.Limits(expansion=…))",
            )


def _read(tensors: Iterable[Leaf | Compound]) -> Iterable[Leaf]:
    """The strided tensors that others are made of, or computed from. Those that were read in columns show all of their
    storages, once, and are left out."""
    waiting = list(tensors)
    while waiting:
        value = waiting.pop()
        if isinstance(value, Compound):
            waiting += value.parts.values()
        elif value.row is not None:
            continue
        elif value.storage.source is COMPUTED:
            waiting += value.storage.where[1]
        else:
            yield value
