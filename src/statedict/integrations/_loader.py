"""The position in a pass over the data: the random generators at its start, and the number of batches so far.

A loader draws its order, and often its augmentation, from the global generators, or from one of its own. To resume, the
pass is replayed: the generators are set back to its start, and the same batches are drawn again and dropped. This takes
the time to load these batches, and works for every loader that does not draw from any other generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from statedict.training import read_random, write_random

from ._each_rank import own_of, rank_of

Position = dict[str, Any]
"""`taken`: the number of batches so far; `global`, `own`: the generators at the start of the pass; `asked`: the global
ones when the last batch was requested. Between two passes, `taken` is 0, and `own` is the start of the next pass."""


class Pass:
    """Iterate over a loader, and record the position. Other attributes are those of the loader."""

    __slots__ = ("_batches", "_resume", "loader")

    loader: Any
    _batches: Batches | None
    _resume: tuple[Position, int, dict[str, Any] | None] | None

    def __init__(self, loader: Any) -> None:
        self.loader, self._batches, self._resume = loader, None, None

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
        # A generator: the pass starts when its first batch is requested, after anything that a framework does before.
        if self._resume is None:
            position = begin(self.loader)
            self._batches = Batches(iter(self.loader), position)
        else:
            (position, ahead, now), self._resume = self._resume, None
            self._batches = replay(self.loader, position, ahead=ahead, now=now)
        yield from self._batches
        self._batches = None

    @property
    def position(self) -> Position:
        """The position of the pass, or between two passes."""
        if self._resume is not None:
            saved: Position = self._resume[0]
            return saved
        return begin(self.loader) if self._batches is None else self._batches.position

    def go_to(self, position: Position, *, ahead: int = 0, now: dict[str, Any] | None = None) -> None:
        """Let the next pass begin at a position; see `replay`."""
        self._batches, self._resume = None, None
        if position["taken"] or ahead:
            self._resume = (position, ahead, now)
        else:
            write_own(self.loader, position["own"])


class Batches:
    """The batches of one pass, which record the position."""

    def __init__(self, batches: Iterator[Any], position: Position) -> None:
        self._batches, self._position = batches, position
        self.taken, self._asked = position["taken"], position["asked"]

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        # Some loaders, such as accelerate's, draw a batch when the previous one is requested.
        self._asked = read_random()
        batch = next(self._batches)
        self.taken += 1
        return batch

    @property
    def position(self) -> Position:
        """The position after the last batch."""
        return self._position | {"taken": self.taken, "asked": self._asked}


def begin(loader: Any) -> Position:
    """The position of a pass that begins now."""
    return {"global": read_random(), "own": _read_own(loader), "taken": 0, "asked": None}


def replay(loader: Any, position: Position, *, ahead: int = 0, now: dict[str, Any] | None = None) -> Batches:
    """Return the rest of a pass.

    Afterwards the global generators have the state `now` (default: as before the call). `ahead`: the number of further
    batches that had been drawn, but not returned; they are returned next.

    Raises ValueError if the loader has fewer batches.
    """
    now, taken = read_random() if now is None else now, position["taken"]
    write_random(position["global"])
    write_own(loader, position["own"])
    batches = iter(loader)
    drawn: list[Any] = []
    for number in range(taken + ahead):
        if number == taken + ahead - 1:
            write_random(position["asked"])
        try:
            batch = next(batches)
        except StopIteration:
            raise ValueError(
                f"the checkpoint was saved after {taken} batches of a pass over the data, but the loader has only {number}"
            ) from None
        if number >= taken:
            drawn.append(batch)
    write_random(now)
    return Batches(chain(drawn, batches), position)


def _read_own(loader: Any) -> dict[str, Any]:
    """The states of a loader's own generators, and the number of passes if it counts them (as accelerate's does)."""
    states = {name: each.get_state() for name, each in _generators(loader, "").items()}
    return {"generators": states, "passes": getattr(loader, "iteration", None)}


def write_own(loader: Any, state: dict[str, Any]) -> None:
    """Restore a loader's own generators, and its number of passes: `own` of a position."""
    for name, each in _generators(loader, "").items():
        if name in state["generators"]:  # some samplers make theirs when the first pass begins
            each.set_state(state["generators"][name])
    if state["passes"] is not None:
        loader.iteration = state["passes"]


def _generators(part: Any, prefix: str) -> dict[str, Any]:
    """The generators of a loader and its samplers, by the names of the attributes."""
    found = {prefix + name: getattr(part, name, None) for name in ("generator", "synchronized_generator")}
    found = {name: each for name, each in found.items() if hasattr(each, "set_state")}
    for name in ("sampler", "batch_sampler"):
        if (inner := getattr(part, name, None)) is not None:
            found |= _generators(inner, f"{prefix}{name}.")
    return found


class ResumableLoader(Pass):
    """A data loader whose position in the pass is saved and resumed: pass it to `save` and `resume` like a model.

    Args:
        loader: anything that can be iterated over several times, such as a DataLoader, also one that accelerate prepared.

    After `resume`, the next pass continues after the last batch that the loop had received; later passes are complete.
    The batches are the same, bit for bit, if the loader draws its order and augmentation only from the global random
    generators or its own. The earlier batches of the pass are loaded again and dropped. Only one pass may run at a
    time.

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

    differs_by_rank = True
    """A save of several ranks has the positions of all. `state_dict` is not a collective: a load calls it for a backup."""

    def state_dict(self) -> dict[str, Any]:
        """The position on this rank."""
        return {rank_of(): self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass begin at this rank's position. Raises ValueError if another number of ranks saved it."""
        self.go_to(own_of(state))
