"""A bar while tensors are read, on a terminal's standard error; nothing anywhere else.

The bar is moved by the sources themselves: each storage is given one that counts what is asked of the real one. So there is
no callback through the library, and nothing is copied for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from statedict.state import Leaf, Read, Source, StateDict, Storage, raw_values

# Below this many bytes there is nothing to wait for.
WORTH_SHOWING = 64 << 20


@contextmanager
def showing(state: StateDict, about: str) -> Iterator[StateDict]:
    """The same state, whose reading moves a bar on the terminal; the state itself where nobody would see one."""
    if state.nbytes < WORTH_SHOWING or not sys.stderr.isatty():
        yield state
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(about, total=state.nbytes)
        yield counted(state, lambda nbytes: bar.advance(task, nbytes))


def counted(state: StateDict, tick: Callable[[int], None]) -> StateDict:
    """The same state, lazy and tied as before; `tick` is called with the bytes of each read."""
    sources: dict[int, _Counting] = {}
    storages: dict[int, Storage] = {}

    def of(leaf: Leaf) -> Leaf:
        old = leaf.storage
        if id(old) not in storages:
            source = sources.setdefault(id(old.source), _Counting(old.source, tick))
            storages[id(old)] = Storage(source, old.key, old.nbytes, old.where, old.location)
        return Leaf(leaf.spec, storages[id(old)], leaf.traits)

    values = {name: of(value) if isinstance(value, Leaf) else value for name, value in raw_values(state).items()}
    return StateDict(values, getattr(state, "_metadata", None))


class _Counting:
    """A Source that does what another does, and counts it."""

    def __init__(self, source: Source, tick: Callable[[int], None]) -> None:
        self._source = source
        self._tick = tick

    def read_into(self, reads: Sequence[Read]) -> None:
        self._source.read_into(reads)
        self._tick(sum(len(read.into) for read in reads))

    def verify(self, storages: Iterable[Storage]) -> None:
        self._source.verify(storages)

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        view = self._source.view(storage, writable=writable)
        if view is not None:
            self._tick(len(view))
        return view
