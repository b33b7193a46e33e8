"""The vote: every rank learns whether all have succeeded, even if a process ends at any instant."""

import json
from pathlib import Path

import pytest
from tests import forked

from statedict.torch import vote

GONE = "its process has ended, or its connection was lost"


def answers(*scenarios):
    """What each rank answers in each scenario; warnings are errors there, too."""
    done = forked.run(Path(__file__).with_name("voters.py"), *scenarios, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def failed(*texts):
    return f"RankError: {'; '.join(texts)}"


@pytest.mark.slow
def test_all_ranks_learn_the_payloads_of_all():
    """If all succeed, each has all payloads, in the order of the ranks; only the ranks that are named take part."""
    two, four, pair, three, alone = answers("succeed:2:", "succeed:4:", "some:4:13", "some:4:023", "alone:2:")
    assert two == [[[[number, rank] for rank in range(2)] for number in range(3)]] * 2
    assert four == [[[[number, rank] for rank in range(4)] for number in range(3)]] * 4
    assert pair == [None, [1, 3], None, [1, 3]]
    assert three == [[0, 2, 3], None, [0, 2, 3], [0, 2, 3]]
    assert alone == [[[0], "OSError: no file"], [[1], "OSError: no file"]]


@pytest.mark.slow
def test_all_ranks_raise_if_one_fails():
    """A rank that failed raises its own error; the others name it. The next vote is not affected."""
    cases = [(2, "0"), (2, "1"), (2, "01"), (4, "0"), (4, "1"), (4, "3"), (4, "13")]
    for (size, failing), told in zip(cases, answers("fail:2:0|1|01", "fail:4:0|1|3|13"), strict=True):
        others = failed(*(f"rank {rank} failed: no file on {rank}" for rank in failing))
        expected = [f"OSError: no file on {rank}" if str(rank) in failing else others for rank in range(size)]
        assert told == [[each, list(range(size))] for each in expected]


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "last", "decided"), [(0, 10, 6), (1, 8, 6), (2, 6, 2)])
def test_the_survivors_agree_wherever_a_rank_is_killed(victim, last, decided):
    """A rank killed between any two messages of the vote is named by all others, or has been counted by all of them."""
    told = answers(*(f"killed_at:3:{victim}.{number}" for number in range(last + 1)))
    dead = failed(f"rank {victim} failed: {GONE}")
    for number, each in enumerate(told[:last]):
        outcome = dead if number < decided else [0, 1, 2]
        assert each == [None if rank == victim else outcome for rank in range(3)], number
    assert told[last] == [[0, 1, 2]] * 3, "it has no further messages"


@pytest.mark.slow
def test_the_survivors_agree_whenever_a_rank_is_killed():
    """The survivors agree whenever a rank is killed, also in the middle of a message."""
    victims = [number % 4 for number in range(12)]
    told = answers(*(f"killed_after:4:{victim}.{number * 1500}" for number, victim in enumerate(victims)))
    for victim, each in zip(victims, told):
        survivors = [answer for rank, answer in enumerate(each) if rank != victim]
        assert survivors in ([failed(f"rank {victim} failed: {GONE}")] * 3, [[0, 1, 2, 3]] * 3)
        assert each[victim] is None


@pytest.mark.slow
def test_a_rank_that_ends_in_the_middle_of_a_message_is_noticed():
    """Gloo forgets to tell those who are sending or receiving the rest of it, and they would wait for the time limit."""
    asked = [(1, "recv", 0), (2, "send", 2), (0, "send", 1), (2, "recv", 0)]
    told = answers(*(f"halfway:4:{victim}.{way}.{sender}" for victim, way, sender in asked))
    for (victim, way, sender), each in zip(asked, told):
        # The last one has voted before.
        outcome = [0, 1, 2, 3] if (victim, way) == (2, "recv") else failed(f"rank {victim} failed: {GONE}")
        assert each == [None if rank == victim else outcome for rank in range(4)], (victim, way, sender)


@pytest.mark.slow
def test_a_rank_that_is_stopped_during_a_vote_is_named():
    """A rank that is stopped after its vote, before it has the result or has acknowledged it, is named by the others."""
    for each in answers("stopped_at:3:1.2", "stopped_at:3:1.4"):
        told = [failed("rank 1 failed: it has not answered within 5 s")] * 2
        assert each == [told, None, told]


@pytest.mark.slow
def test_a_rank_votes_whatever_happens_in_a_joint_load():
    """An error, an interrupt or an early end inside the block is a vote, so that no rank waits."""
    raised, interrupted, left = answers("joint:3:raise|interrupt|leave")
    assert raised == [failed("rank 1 failed: 'weight'"), "KeyError: 'weight'", failed("rank 1 failed: 'weight'")]
    others = failed("rank 1 failed: KeyboardInterrupt")
    assert interrupted == [others, "KeyboardInterrupt: ", others]
    assert left == [[0, None, 2], "left", [0, None, 2]]


@pytest.mark.slow
def test_ranks_verify_together_what_each_of_them_has_read():
    """Damage in one rank's rows is a ChecksumError on all ranks, which names the tensor, the file and its member."""
    whole, *damaged = answers("rows:3:|0|150|299")
    assert whole == [0.0, 10000.0, 20000.0]
    for told in damaged:
        assert told[0] == told[1] == told[2]
        assert told[0].startswith(
            "ChecksumError: /x.pt: archive/data/0: the bytes of 'weight' have changed since they were"
        )


WAYS = ["file", "memory", "assign", "swap", "scarce", "hooked", "own"]
OLD, NEW = [0.0], [1.0]
LOADED = "<All keys matched successfully>"
CHECKED = "LoadReport(missing_keys=[], unexpected_keys=[], 2 would be loaded (dry run))"


@pytest.mark.slow
def test_a_joint_load_succeeds_on_all_ranks_or_changes_none():
    """Whatever fails on one rank, in whichever way its tensors are written, all raise and keep their old elements."""
    kinds = {"damaged": "ChecksumError", "missing": "FileNotFoundError", "refused": "LoadError", "none": ""}
    cases = [(way, failure) for way in WAYS for failure in kinds if (way, failure) != ("memory", "damaged")]
    # A killed rank takes part in nothing else.
    deaths = [(way, "killed") for way in WAYS]
    told_in_turn = answers(f"load:3:{'|'.join(map('.'.join, cases))}", *(f"load:3:{way}.killed" for way in WAYS))
    for (way, failure), told in zip(cases + deaths, told_in_turn, strict=True):
        first, own, last = told
        if failure == "none":
            assert told == [[LOADED, NEW]] * 3, way
            continue
        text = GONE
        if own is not None:
            kind, _, text = own[0].partition(": ")
            # A module's own method raises what it likes.
            expected = "RuntimeError" if (way, failure) == ("own", "refused") else kinds[failure]
            assert (kind, own[1]) == (expected, OLD), way
        assert (own is None) == (failure == "killed")
        assert first == last == [failed(f"rank 1 failed: {text}"), OLD], (way, failure)


@pytest.mark.slow
def test_a_dry_run_of_a_joint_load_does_not_vote():
    """A dry run of a joint load does not vote, so a rank can make it alone."""
    [told] = answers("load:3:dry.missing")
    assert told == [
        [CHECKED, OLD],
        ["FileNotFoundError: [Errno 2] No such file or directory: 'y.pt'", OLD],
        [CHECKED, OLD],
    ]


@pytest.mark.slow
def test_a_rank_killed_at_any_instant_of_a_load_leaves_the_others_alike():
    """The other ranks all raise and keep the old elements, or the load was complete on all of them."""
    for first, victim, last in answers(*(f"load:3:file.{number * 2500}" for number in range(12))):
        assert victim is None
        assert first == last
        assert first in ([failed(f"rank 1 failed: {GONE}"), OLD], [LOADED, NEW])


def test_a_process_by_itself_votes_without_a_process_group():
    """Without torch.distributed there is one rank."""
    assert vote(None, 7) == [7]
    with pytest.raises(OSError, match="no file"):
        vote(OSError("no file"))
