"""One operation that several ranks do together: whatever happens on a rank, it votes exactly once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from statedict.files import Range
from statedict.state import Storage

from ._checksums import SharedChecksums, Sums
from ._vote import all_ranks, vote


class Joint:
    """An operation of several ranks, as a context manager; `ranks` None: all of them.

    The code inside calls `agree` between what can fail and what cannot be undone. If it raises before, or never calls
    `agree`, this rank votes at the end of the block, so that no other rank waits for it.
    """

    def __init__(self, ranks: Sequence[int] | None = None) -> None:
        self.ranks = all_ranks() if ranks is None else sorted(ranks)
        self._checksums = SharedChecksums((), 0)
        self._has_voted = False

    def share(self, reads: Iterable[tuple[Storage, Sequence[Iterable[Range]]]]) -> None:
        """Verify the checksums of these storages together: see SharedChecksums. Called at most once, before reading."""
        self._checksums = SharedChecksums(reads, self.ranks.index(dist.get_rank()))
        self._checksums.__enter__()

    def agree(self, payload: Any = None) -> list[Any]:
        """Vote for success; return the payloads of all ranks, or raise on all of them.

        Raises RankError if another rank has failed, ChecksumError if the bytes that all ranks have read do not match.
        """
        sums: Sums | None = None
        error: BaseException | None = None
        try:
            sums = self._checksums.sums()
        except BaseException as caught:  # noqa: BLE001  # the vote raises it, and tells the other ranks
            error = caught
        self._has_voted = True
        given = vote(error, (payload, sums), self.ranks)
        self._checksums.compare([sums for _, sums in given])
        return [payload for payload, _ in given]

    def __enter__(self) -> Joint:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if not self._has_voted and error is None:
                self.agree()
            elif not self._has_voted:
                self._has_voted = True
                vote(error, None, self.ranks)
        finally:
            self._checksums.__exit__(kind, error, trace)


def joint_load(tensors: Iterable[torch.Tensor]) -> Joint | None:
    """Return the joint load of tensors, by all ranks that hold parts of them; None if there is no DTensor among them."""
    if "torch.distributed.tensor" not in sys.modules or not (dist.is_available() and dist.is_initialized()):
        return None
    ranks = holders(tensors)
    return Joint(ranks) if len(ranks) > 1 and dist.get_rank() in ranks else None


def holders(tensors: Iterable[Any]) -> list[int]:
    """The ranks that hold parts of the DTensors among some tensors, in order; the same list on each of these ranks."""
    from torch.distributed.tensor import DTensor

    meshes = {tensor.device_mesh for tensor in tensors if isinstance(tensor, DTensor)}
    groups = [frozenset(mesh.mesh.flatten().tolist()) for mesh in meshes]
    largest = max(groups, key=len, default=frozenset())
    # Each rank sees only the meshes that it is part of; all ranks must come to the same set.
    return sorted(largest) if all(group <= largest for group in groups) else all_ranks()
