"""The position in a pass over the data: which generators it began with, and how many batches it has given.

A loader draws its order, and often its augmentation, from the global generators. So a pass is replayed: with the
generators as they were when it began, the same batches are drawn again and dropped. That costs the loading of these batches,
and needs nothing from the loader except that it draws from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from statedict.training import read_random, write_random

from ._each_rank import of_all, own


class Pass:
    """Iterate over a loader, and know the position. Other attributes are those of the loader.

    Attributes:
        loader: the loader.
        taken: how many batches the current pass has given; 0 between two passes.
        start: the state of the random generators when the pass began, or None.
    """

    __slots__ = ("_drawn", "loader", "start", "taken")

    loader: Any
    taken: int
    start: dict[str, Any] | None

    def __init__(self, loader: Any) -> None:
        self.loader, self.start, self.taken, self._drawn = loader, None, 0, None

    def __getattr__(self, name: str) -> Any:
        if name in Pass.__slots__:  # not there yet: a copy is being made
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Pass.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self.loader, name, value)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        # A generator: the pass begins when its first batch is wanted, after whatever a framework does before that.
        if self._drawn is None:
            self.start, self.taken = read_random(), 0
            batches = iter(self.loader)
        else:
            assert self.start is not None
            ahead, now = self._drawn
            self._drawn = None
            batches = replay(self.loader, self.start, self.taken, ahead=ahead, now=now)
        for batch in batches:
            self.taken += 1
            yield batch
        self.start, self.taken = None, 0

    def go_to(self, start: dict[str, Any], taken: int, *, ahead: int = 0, now: dict[str, Any] | None = None) -> None:
        """Let the next pass begin where another one was; see `replay`."""
        self.start, self.taken, self._drawn = start, taken, (ahead, now)


def replay(
    loader: Any, start: dict[str, Any], taken: int, *, ahead: int = 0, now: dict[str, Any] | None = None
) -> Iterator[Any]:
    """Return an iterator over the rest of a pass that began with the generators at `start` and has given `taken` batches.

    Afterwards the generators are at `now` (default: as before the call). `ahead`: this many further batches had been drawn,
    but not given; they are the next ones.

    Raises ValueError if the loader has fewer batches.
    """
    now = read_random() if now is None else now
    write_random(start)
    batches = iter(loader)
    drawn: list[Any] = []
    for position in range(taken + ahead):
        try:
            batch = next(batches)
        except StopIteration:
            raise ValueError(
                f"the checkpoint was saved after {taken} batches of a pass over the data, but the loader has only {position}"
            ) from None
        if position >= taken:
            drawn.append(batch)
    write_random(now)
    return chain(drawn, batches)


class ResumableLoader(Pass):
    """A data loader whose position in the pass is saved and resumed: pass it to `save` and `resume` like a model.

    Args:
        loader: anything that can be iterated over several times, such as a DataLoader, also one that accelerate prepared.

    After `resume` the next pass continues after the last batch that the loop had got; the next one is complete. What it
    gives is the same, bit for bit, if the loader draws its order and augmentation from the global random generators. The
    batches before are loaded again and dropped. One pass at a time.

    >>> import tempfile, statedict
    >>> loader = ResumableLoader(range(5))
    >>> with statedict.CheckpointManager(tempfile.mkdtemp()) as manager:
    ...     for batch in loader:
    ...         if batch == 2:
    ...             manager.save(batch, loader=loader)
    ...             break
    ...     loader = ResumableLoader(range(5))
    ...     _ = manager.resume(loader=loader)
    >>> list(loader), list(loader)
    ([3, 4], [0, 1, 2, 3, 4])
    """

    __slots__ = ()

    def state_dict(self) -> dict[str, Any]:
        """The position on each rank: `taken`, and `start`, the random generators when the pass began (or None)."""
        return {"ranks": of_all({"start": self.start, "taken": self.taken})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass begin at this rank's position. Raises ValueError if another number of ranks saved it."""
        position = own(state["ranks"])
        if position["start"] is None:
            self.start, self.taken, self._drawn = None, 0, None
        else:
            self.go_to(**position)
