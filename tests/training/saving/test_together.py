"""Asynchronous saves of several ranks."""

import pytest
from tests.training.ranks import answers as ranks
from tests.training.ranks import answers_of, started

pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["background:ddp:2", "background:fsdp:4"])
def test_training_goes_on_while_all_ranks_write(tmp_path, phase):
    """The copy of each rank is saved, whatever the training does meanwhile; the next save reuses its memory."""
    (answers,) = ranks(tmp_path / "run", phase)
    told = {"unfinished": True, "collective": True, "same": True, "count": 0, "reused": True, "steps": [2, 3, 4]}
    assert answers == [told] * len(answers)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_all_ranks_replace_a_waiting_save_alike(tmp_path, size):
    """A rank that holds an older save than another one drops it, and joins with the newer one."""
    (answers,) = ranks(tmp_path / "run", f"replaces:plain:{size}")
    assert answers == [[[1, 3, 4], [1, 3, 4]]] * size


@pytest.mark.slow
def test_a_save_in_the_background_that_fails_on_one_rank_fails_on_all(tmp_path):
    """All are told at the same call: in the copy, in the write, after it, or if the ranks save different steps."""
    (answers,) = ranks(tmp_path / "run", "one_fails:plain:2")
    for answer, expected in zip(
        answers,
        (
            [
                "RankError: rank 1 failed: no state",
                "SaveError: 'counter': count",
                "AfterSaveError",
                "SaveError: rank 0 saves",
            ],
            ["OSError: no state here", *["RankError: rank 0 failed"] * 3],
        ),
    ):
        assert len(answer["told"]) == len(expected)
        assert all(text.startswith(start) for text, start in zip(answer["told"], expected))
        assert "rank 0 saves step 6 with model, and rank 1 step 5 with model" in answer["told"][3]
        assert (answer["steps"], answer["left"]) == ([3, 4, 8], [".lock"])


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_by_all_within_the_time_limit(tmp_path):
    """Also by itself, once it runs again, if it is not the first; later saves fail at once; the older checkpoint stays."""
    cases = [(1, 2), (3, 4), (0, 3)]
    jobs = [started(tmp_path / f"{victim}-{size}", f"hangs:{victim}:{size}") for victim, size in cases]
    for (victim, size), job in zip(cases, jobs):
        (answers,) = answers_of(job)
        expected = {"told": [f"RankError: rank {victim} failed: it has not answered within 6 s"] * 2, "steps": [1]}
        assert (answers if victim else answers[1:]) == [expected] * (size if victim else size - 1)


@pytest.mark.slow
def test_a_store_that_never_answers_is_waited_for_no_longer_than_the_time_limit(tmp_path):
    """PyTorch reads forever at half a record in the file of the store; a save raises, and later saves do so at once."""
    (answers,) = ranks(tmp_path / "run", "silent:plain:2")
    for answer in answers:
        first, second = answer.pop("told")
        assert first.startswith("RankError: rank 0 failed: the store of torch.distributed has not answered within 2 s")
        assert (second, answer) == (first, {"steps": []})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_ranks_share_frozen_parameters_between_checkpoints(tmp_path, kind):
    """Each rank's part of them is one file of all checkpoints until it changes; deleting the others does not affect one."""
    (answers,) = ranks(tmp_path / "run", f"frozen:{kind}:2")
    for answer in answers:
        first, second, third, changed = answer["inodes"]
        assert len(first) == 2
        assert first == second == third
        # With DDP, each frozen layer was written by one of the ranks.
        assert len(set(first) & set(changed)) == (1 if kind == "ddp" else 0)
        assert (answer["same"], answer["after"]) == (True, 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "fsdp"])
def test_every_bit_is_saved_as_it_was_at_the_save(tmp_path, kind):
    """Of every dtype, with every kind of NaN, as torch.distributed.checkpoint reads it and as a resume does."""
    (answers,) = ranks(tmp_path / "run", f"bits:{kind}:2")
    assert answers == [[60, {"dcp": [], "resume": []}]] * 2


@pytest.mark.slow
def test_a_rank_that_is_lost_in_the_first_save_is_named(tmp_path):
    """Before the ranks have connected, the time limit passes first; the next save fails at once."""
    jobs = [started(tmp_path / when, f"dies:{when}:3") for when in ("before", "connecting", "connected")]
    told = ["RankError: rank 2 failed: it has not answered within 10 s"] * 2
    for job in jobs:
        assert answers_of(job) == [[*[{"told": told, "steps": []}] * 2, None]]


@pytest.mark.slow
def test_a_save_whose_job_is_shut_down_says_what_to_wait_for(tmp_path):
    """A save never becomes a checkpoint of one rank; a checkpoint that was complete stays."""
    (answers,) = ranks(tmp_path / "run", "leaves:fsdp:2")
    for answer in answers:
        assert answer["told"].startswith("SaveError: torch.distributed was shut down before this save had ended")
        assert answer["steps"] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp", "tp"])
def test_a_plan_is_used_again_only_if_it_is_the_same(tmp_path, kind):
    """What a save writes with the plan of an earlier one is, byte for byte, what a new manager writes, after every change.

    The items are those that PyTorch's own functions and planner find.
    """
    (answers,) = ranks(tmp_path / "run", f"reuses:{kind}:2")
    for answer in answers:
        assert answer["as torch"]
        assert answer["differing"] == [[]] * 10
        # The state of DDP has the parameters themselves: once they are frozen, the copy is made anew.
        frozen = [3, 3] if kind == "ddp" else [0, 0]
        assert answer["planned"] == [0, 0, 0, *frozen, 5, 5, 7, 8, 9]
