"""Show a progress bar while tensors are read, if standard error is a terminal.

Each storage gets a Source that forwards to the real one and counts the bytes. So the library does not need callbacks, and
nothing is copied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from statedict.state import Compound, Leaf, Parts, Read, Regional, Source, Storage, Streaming, map_tree, tensors_of

from ..errors import printable

# With fewer bytes, a bar is not useful.
WORTH_SHOWING = 64 << 20


def nbytes_of(tree: Any) -> int:
    """Return the bytes of all tensors in a tree; tied tensors are counted once each."""
    leaves = (value for value in tensors_of(tree) if isinstance(value, (Leaf, Compound)))
    return sum(leaf.nbytes for leaf in leaves)


@contextmanager
def showing(tree: Any, about: str) -> Iterator[Any]:
    """Give the tree with tensors whose reading advances a progress bar; the tree itself if no bar is shown."""
    nbytes = nbytes_of(tree)
    if nbytes < WORTH_SHOWING or not sys.stderr.isatty():
        yield tree
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(printable(about)), total=nbytes)
        yield counted(tree, lambda nbytes: bar.advance(task, nbytes))


def counted(tree: Any, tick: Callable[[int], None]) -> Any:
    """Return the same tree, still lazy and tied; `tick` is called with the bytes of each read."""
    sources: dict[int, _Counting] = {}
    storages: dict[int, Storage] = {}

    def of(value: Any) -> Any:
        if not isinstance(value, Leaf) or isinstance(value, Parts):
            return value
        old = value.storage
        if id(old) not in storages:
            source = sources.setdefault(id(old.source), _Counting(old.source, tick))
            storages[id(old)] = _with_source(old, source)
        return Leaf(value.spec, storages[id(old)], value.traits)

    return map_tree(tree, of)


def _with_source(storage: Storage, source: Source) -> Storage:
    return Storage(source, storage.key, storage.nbytes, storage.where, storage.location)


class _Counting:
    """A Source that forwards to another and counts the bytes."""

    def __init__(self, source: Source, tick: Callable[[int], None]) -> None:
        self._source = source
        self._tick = tick

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        self._source.read_into(reads, verify=verify)
        self._tick(sum(len(read.into) for read in reads))

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        if isinstance(self._source, Streaming):
            for piece in self._source.stream(storage, start, stop):
                yield piece
                self._tick(len(piece))
        else:
            whole = bytearray(stop - start)
            self.read_into([Read(storage, start, memoryview(whole))])
            yield memoryview(whole)

    def part(self, leaf: Leaf) -> Leaf:
        if not isinstance(self._source, Regional):
            return leaf
        found = self._source.part(Leaf(leaf.spec, _with_source(leaf.storage, self._source), leaf.traits))
        counting = _Counting(found.storage.source, self._tick)
        return Leaf(found.spec, _with_source(found.storage, counting), found.traits)

    def verify(self, storages: Iterable[Storage]) -> None:
        self._source.verify(storages)

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        view = self._source.view(storage, writable=writable)
        if view is not None:
            self._tick(len(view))
        return view
