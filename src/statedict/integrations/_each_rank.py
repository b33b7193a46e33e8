"""Values that differ between the processes (ranks) of a training: a checkpoint holds those of all ranks, in order."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


def of_all(value: Any) -> list[Any]:
    """Return the values of all ranks: a small collective if there are several. Partner of `own`."""
    if sys.modules.get("torch") is None:
        return [value]
    from statedict.torch import gather, ranks

    return gather(value) if ranks()[1] > 1 else [value]


def own(values: Sequence[Any]) -> Any:
    """Return this rank's value; raises ValueError if another number of ranks saved them. Partner of `of_all`."""
    rank, size = 0, 1
    if sys.modules.get("torch") is not None:
        from statedict.torch import ranks

        rank, size = ranks()
    if len(values) != size:
        raise ValueError(
            f"the position in the data was saved by {len(values)} processes, but this job has {size}, so the batches that "
            f"each process has seen are not known. Resume with {len(values)} processes, or without the loader"
        )
    return values[rank]
