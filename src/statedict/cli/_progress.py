"""A bar while tensors are read, on a terminal's standard error; nothing anywhere else.

The bar is moved by the sources themselves: each storage is given one that counts what is asked of the real one. So there is
no callback through the library, and nothing is copied for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from statedict.state import Compound, Leaf, Read, Source, Storage, Streaming, map_tree, tensors_of

from ..errors import printable

# Below this many bytes there is nothing to wait for.
WORTH_SHOWING = 64 << 20


def nbytes_of(tree: Any) -> int:
    """Bytes of the tensors in a state, or another tree; those of tied ones once for each."""
    leaves = (value for value in tensors_of(tree) if isinstance(value, (Leaf, Compound)))
    return sum(leaf.spec.nbytes if isinstance(leaf, Leaf) else leaf.nbytes for leaf in leaves)


@contextmanager
def showing(tree: Any, about: str) -> Iterator[Any]:
    """The same state, or other tree, whose reading moves a bar on the terminal; itself where nobody would see one."""
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
    """The same state, or other tree, lazy and tied as before; `tick` is called with the bytes of each read."""
    sources: dict[int, _Counting] = {}
    storages: dict[int, Storage] = {}

    def of(value: Any) -> Any:
        if not isinstance(value, Leaf):
            return value
        old = value.storage
        if id(old) not in storages:
            source = sources.setdefault(id(old.source), _Counting(old.source, tick))
            storages[id(old)] = Storage(source, old.key, old.nbytes, old.where, old.location)
        return Leaf(value.spec, storages[id(old)], value.traits)

    return map_tree(tree, of)


class _Counting:
    """A Source that does what another does, and counts it."""

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

    def verify(self, storages: Iterable[Storage]) -> None:
        self._source.verify(storages)

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        view = self._source.view(storage, writable=writable)
        if view is not None:
            self._tick(len(view))
        return view
