"""Values that differ between the processes (ranks) of a training: a checkpoint holds those of all ranks, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from statedict.training import ranks


def of_all(value: Any) -> list[Any]:
    """Return the values of all ranks: a small collective if there are several. Partner of `own`."""
    if ranks()[1] == 1:
        return [value]
    from statedict.torch import gather

    return gather(value)


def own(values: Sequence[Any]) -> Any:
    """Return this rank's value; raises ValueError if another number of ranks saved them. Partner of `of_all`."""
    return own_of({_key(rank, len(values)): value for rank, value in enumerate(values)})


def rank_of() -> str:
    """The key of this rank's value in a state that has those of all, such as `rank 0 of 2`. Partner of `own_of`."""
    return _key(*ranks())


def own_of(values: Mapping[str, Any]) -> Any:
    """Return this rank's value in a state; raises ValueError if another number of ranks saved it. Partner of `rank_of`."""
    if rank_of() not in values:
        raise ValueError(
            f"the position in the data was saved by other processes ({', '.join(values)}), and this one is {rank_of()}, so "
            "the batches that each process has seen are not known. Resume with as many processes, or without the loader"
        )
    return values[rank_of()]


def _key(rank: int, size: int) -> str:
    return f"rank {rank} of {size}"
