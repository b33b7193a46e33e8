"""The vote: every rank says whether it has succeeded and learns about all others.

Theory of operation. All messages go from rank to rank. A rank whose process ends closes its connections, and a message to or
from it fails (gloo; NCCL does not notice: there, a group that also has gloo, such as `cpu:gloo,cuda:nccl`, votes through
gloo).

1. Every rank sends its ballot to the first rank (the leader).
2. The leader sends all ballots, the result, to the second rank (the deputy), which acknowledges them, and only then to the
   others. So if any rank knows the result, the deputy knows it too.
3. Each other rank tells the deputy that it has received the result. If the leader is lost, the rank sends the deputy its
   ballot instead. The deputy answers with the leader's result, or, if it has none, with one of its own, in which the leader
   has failed.

A rank that hangs is found by the leader's time limit. The other ranks wait for the leader longer than the leader waits for
them, so the leader finds that rank first, and its result names it. They name the leader only if the leader is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch.distributed as dist

from statedict.errors import RankError

from ._mail import ENDED, Mail

# Returns a reply to each rank, from the payloads of all.
Decide = Callable[[list[Any]], Sequence[Any]]

# Waiting times, in multiples of the time limit: for the ballots, for the leader's result, for an answer, and that of the
# deputy for ranks that lost the leader. RESULT exceeds the sum of three times: the leader may come to the vote one limit
# later than the rank that waits for it, waits one limit for the ballots, and half of one for the deputy. LATER exceeds
# ANSWER because those ranks may have come to the vote one limit later than the deputy.
BALLOTS, RESULT, ANSWER, LATER = 1.0, 3.0, 0.5, 1.5
# A time of `monotonic` that has passed: wait as little as possible.
NOW = 0.0


class Ballot(NamedTuple):
    """A rank's result: the text of its error, None if it has succeeded; and its payload."""

    error: str | None
    payload: Any = None


GONE = Ballot(ENDED)


def vote(
    error: BaseException | None,
    payload: Any = None,
    ranks: Sequence[int] | None = None,
    *,
    mail: Mail | None = None,
    decide: Decide | None = None,
) -> list[Any]:
    """Return the payloads of all ranks, in their order, if all have succeeded; raise on every rank otherwise.

    Every rank of `ranks` (None: all) must call this the same number of times. `error` is why this rank has failed: it raises
    that error, and the others raise RankError, which names all ranks that have failed. A rank whose process has ended
    without voting has failed; one that ends after it has voted may count as either, but all others agree which.

    `decide`: if all have succeeded, the first rank calls it with the payloads, and each rank gets its reply instead of them
    (a list of that reply only). If it raises, the first rank has failed. All ranks give it, or none.

    Not guaranteed: if the processes of the first two ranks both end during one vote, some of the others may succeed and
    others fail. If a vote is interrupted (KeyboardInterrupt), the other ranks wait until the process of that rank has ended.
    A rank that is lost because it was late may be told that others are.
    `payload` is pickled; only the ranks of one job exchange it.
    """
    members = all_ranks() if ranks is None else sorted(ranks)
    decision = None if decide is None else Decision(decide)
    own = Ballot(None if error is None else _text(error), payload)
    ballots = ballots_of_all(own, members, mail or Mail(), decision)
    if error is None and decision is not None:
        error = decision.error
    if error is not None:
        raise error
    failed = {rank: ballot.error for rank, ballot in zip(members, ballots) if ballot.error is not None}
    if failed:
        raise RankError(failed)
    if decide is not None:
        ballots = [ballots[members.index(_me(members))]]
    return [ballot.payload for ballot in ballots]


def gather(payload: Any) -> list[Any]:
    """The payloads of all ranks, in order: one small collective, cheap enough for every step of a training.

    Unlike `vote`, it does not tell a rank that has ended from a slow one: then it raises what the collective raises.
    """
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, payload)
    return found


class Decision:
    """Computes the leader's reply to each rank. An error in it counts as the leader's.

    Attributes:
        error: the error, or None.
    """

    def __init__(self, decide: Decide) -> None:
        self.error: BaseException | None = None
        self._decide = decide

    def replies(self, ballots: list[Ballot]) -> list[Ballot]:
        """Return the ballots with the replies as their payloads."""
        if any(ballot.error is not None for ballot in ballots):
            return ballots
        try:
            replies = self._decide([ballot.payload for ballot in ballots])
        except BaseException as error:  # noqa: BLE001  # `vote` raises it once the other ranks know
            self.error = error
            return [Ballot(_text(error)), *ballots[1:]]
        return [Ballot(None, reply) for reply in replies]


def ballots_of_all(
    ballot: Ballot, members: Sequence[int], mail: Mail | None = None, decision: Decision | None = None
) -> list[Ballot]:
    """Return the ballots of all members, a sorted list of ranks that contains this one; never raises for a failed rank.

    With a `decision`, the payloads are the replies; a rank other than the first two gets only its own.
    """
    mail = mail or Mail()
    rank = _me(members)
    if rank == members[0]:
        return _lead(ballot, members, mail, decision)
    return _deputise(ballot, members, mail) if rank == members[1] else _follow(ballot, members, mail)


def _lead(ballot: Ballot, members: Sequence[int], mail: Mail, decision: Decision | None) -> list[Ballot]:
    until = mail.until(BALLOTS)
    ballots = [ballot, *(mail.receive(rank, until) or _gone(mail, rank) for rank in members[1:])]
    if decision is not None:
        ballots = decision.replies(ballots)
    until = mail.until(ANSWER)
    if len(members) > 1 and not (mail.send(members[1], ballots, until) and mail.receive(members[1], until)):
        # Nobody else knows the result yet, so it may still change.
        ballots[1] = _gone(mail, members[1])
    results = [ballots if decision is None else _only(ballots, number) for number in range(len(members))]
    sending = [(rank, mail.start(rank, result)) for rank, result in zip(members[2:], results[2:])]
    for rank, each in sending:
        mail.has_sent(rank, each, until)
    return ballots


def _only(ballots: Sequence[Ballot], number: int) -> list[Ballot]:
    """The ballots with only one of the payloads: all of them, sent to all ranks, would be too much of a plan for each."""
    return [each if n == number else Ballot(each.error) for n, each in enumerate(ballots)]


def _deputise(ballot: Ballot, members: Sequence[int], mail: Mail) -> list[Ballot]:
    ballots = _result(ballot, members[0], mail)
    if ballots is not None and ballots[1].error == ballot.error:
        mail.send(members[0], True, mail.until(ANSWER))
    until = mail.until(LATER if ballots is None else ANSWER)
    asked = [mail.receive(rank, until) or _gone(mail, rank) for rank in members[2:]]
    if ballots is None:
        ballots = [_gone(mail, members[0]), ballot, *asked]
    asking = [rank for rank, request in zip(members[2:], asked) if rank not in mail.lost and request != _INFORMED]
    sending = [(rank, mail.start(rank, ballots)) for rank in asking]
    until = mail.until(ANSWER)
    for rank, each in sending:
        mail.has_sent(rank, each, until)
    return ballots


def _follow(ballot: Ballot, members: Sequence[int], mail: Mail) -> list[Ballot]:
    ballots = _result(ballot, members[0], mail)
    if ballots is None:
        ballots = _result(ballot, members[1], mail)
    elif not mail.is_loss(ballots[1].error):
        # Best effort: the deputy may have stopped waiting.
        mail.send(members[1], _INFORMED, NOW)
    return ballots or [_gone(mail, rank) if rank in members[:2] else Ballot(None) for rank in members]


def _gone(mail: Mail, rank: int) -> Ballot:
    return Ballot(mail.reason(rank))


def _result(ballot: Ballot, rank: int, mail: Mail) -> list[Ballot] | None:
    """Send a ballot to the leader, or to the deputy; return the result, None if that rank is lost."""
    until = mail.until(RESULT)
    mail.send(rank, ballot, until)
    found: list[Ballot] | None = mail.receive(rank, until)
    return found


_INFORMED = "informed"


def _me(members: Sequence[int]) -> int:
    return members[0] if len(members) == 1 else dist.get_rank()


def all_ranks() -> list[int]:
    """All ranks of the job; only rank 0 if torch.distributed is not initialised."""
    return list(range(dist.get_world_size())) if dist.is_available() and dist.is_initialized() else [0]


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
