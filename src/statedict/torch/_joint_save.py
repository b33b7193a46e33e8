"""Save a tree with DTensors: all ranks that hold parts of them write one file, or one set of shards, together.

The first of these ranks is the leader, which saves as one process would; see `statedict.files.JointWriter`. The ranks meet
by votes, so each of them learns when another has failed or its process has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch.distributed as dist

from statedict.errors import RankError, SaveError
from statedict.files import JointWriter, Order, Run, Written, crc32, follow, remove_abandoned
from statedict.formats import runs_of
from statedict.state import Parts, leaf_of

from .tensors._dtensor import first_copies, is_divided, is_partial, is_sharded, placement_of
from .together._joint import holders
from .together._vote import GONE, Ballot, ballots_of_all


def joint_save(values: Iterable[Any], name: Callable[[Any], str]) -> JointSave | None:
    """Return the save of a tree with these values by several ranks; None if this process has all elements itself.

    `name` returns the name of a value, for errors. Every rank gives the same DTensors in the same order.
    """
    tensors = [value for value in values if is_sharded(value)]
    if not any(map(is_divided, tensors)):
        return None
    return JointSave(tensors, holders(tensors), name)


class JointSave:
    """A save by several ranks, and the contents that they have together: the DTensors of the tree, in order."""

    def __init__(self, tensors: Sequence[Any], ranks: Sequence[int], name: Callable[[Any], str]) -> None:
        self._tensors = tensors
        self._name = name
        self._meeting = _Ranks(ranks, _digest(tensors))

    def save(self, write: Callable[[JointWriter], None], path: Any) -> None:
        """Save to `path`; `write`, which is called by the leader only, does what one process would do.

        Raises the error of this rank, or RankError if another one failed; nothing was changed then.
        """
        meeting = self._meeting
        if meeting.me not in meeting.ranks:
            return
        try:
            if meeting.me == meeting.ranks[0]:
                write(JointWriter(meeting, self, self._numbers()))
                meeting.order(None)
            else:
                follow(meeting, self)
        except BaseException as error:
            meeting.fail(error)
            if meeting.is_without_leader:
                remove_abandoned(path)
            raise

    def runs(self, content: int) -> Iterator[Iterator[Run]]:
        tensor = self._tensors[content]
        if is_partial(tensor):
            raise SaveError(
                f"{self.name(content)}: its placement is {placement_of(tensor)}: reduce it first (redistribute)"
            )
        return runs_of(self._parts(content))

    def writers(self, content: int) -> Sequence[int]:
        return first_copies(self._tensors[content])

    def name(self, content: int) -> str:
        return self._name(self._tensors[content])

    def _parts(self, content: int) -> Parts:
        parts = leaf_of(self._tensors[content])
        if not isinstance(parts, Parts):
            raise SaveError(f"{self.name(content)}: the local tensor of this DTensor cannot be read")
        return parts

    def _numbers(self) -> dict[Any, int]:
        # Tied tensors have one key.
        return {self._parts(number).storage.key: number for number in reversed(range(len(self._tensors)))}


class _Ranks:
    """The Meeting of some ranks; `digest` is equal on ranks that save the same DTensors."""

    def __init__(self, ranks: Sequence[int], digest: int) -> None:
        self.me = dist.get_rank()
        self.ranks = ranks
        self.is_without_leader = False
        self._digest = digest
        self._is_first = True
        self._is_over = False

    def order(self, order: Order | None) -> Order | None:
        ballots = self._meet(Ballot(None, (self._digest, order)))
        if ballots[0].error is None and ballots[0].payload[1] is None:
            # The leader has finished: all parts are written, so it does not matter if another rank has ended since.
            return None
        self._check(ballots)
        for rank, ballot in zip(self.ranks, ballots):
            if ballot.payload[0] != ballots[0].payload[0]:
                self._is_over = True
                raise SaveError(
                    f"rank {rank} saves other sharded tensors than rank {self.ranks[0]}: save the same state on all ranks"
                )
        self._is_first = False
        found: Order = ballots[0].payload[1]
        return found

    def report(self, written: Sequence[Written]) -> list[Sequence[Written]]:
        ballots = self._meet(Ballot(None, written))
        self._check(ballots)
        return [ballot.payload for ballot in ballots]

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks why this one has failed, unless they know."""
        if not self._is_over:
            self._is_over = True
            self._meet(Ballot(str(error) or type(error).__name__))

    def _meet(self, ballot: Ballot) -> list[Ballot]:
        ballots = ballots_of_all(ballot, list(self.ranks))
        self.is_without_leader = ballots[0] == GONE
        return ballots

    def _check(self, ballots: Sequence[Ballot]) -> None:
        failed = {rank: ballot.error for rank, ballot in zip(self.ranks, ballots) if ballot.error is not None}
        if failed:
            self._is_over = True
            raise RankError({rank: self._explained(text) for rank, text in failed.items()})

    def _explained(self, text: str) -> str:
        if text != GONE.error or not self._is_first:
            return text
        ranks = ", ".join(map(str, self.ranks[:8])) + (", …" if len(self.ranks) > 8 else "")
        return (
            f"{text}; or it has not called save within the time limit of the process group: a sharded tensor must be saved "
            f"by all ranks that hold parts of it ({ranks}), not by one of them"
        )


def _digest(tensors: Sequence[Any]) -> int:
    return crc32(repr([(str(each.dtype), tuple(each.shape), placement_of(each)) for each in tensors]).encode())
