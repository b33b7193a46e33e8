"""Limit the size of tensors from a file in proportion to their storages.

A view can repeat one element a trillion times, and a file of a few hundred bytes can hold many views of one storage. Views
themselves need no memory, so the limit is checked where their elements are written out or used in computations.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from ..errors import LimitError
from ._computed import COMPUTED
from ._leaf import Leaf, Spec
from ._values import Compound

# Bytes that are always allowed.
FLOOR = 64 << 20


class _Shown(NamedTuple):
    """The bytes of each view and of each storage of one source."""

    views: dict[tuple[Hashable, Spec], int]
    storages: dict[Hashable, int]


def require_in_proportion(tensors: Iterable[Leaf | Compound]) -> None:
    """Raise LimitError if the tensors of a file together have more than `Limits.expansion` times the bytes of their storages
    (and more than 64 MiB). Tensors in memory, whose views this program has made, are not limited."""
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
                f"its tensors have {nbytes:,} bytes, but their storages only {held:,}: to write them out, or to compute "
                f"with them, would exceed the limit of {source.expansion} times",
                file=getattr(source, "name", None),
                hint="if you trust the file, use statedict.open(path, limits=statedict.Limits(expansion=…))",
            )


def _read(tensors: Iterable[Leaf | Compound]) -> Iterable[Leaf]:
    """Return the strided tensors that other tensors consist of, or are computed from. Rows of a table are left out: they
    cover their storages exactly."""
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
