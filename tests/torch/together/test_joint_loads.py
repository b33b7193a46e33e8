"""Loads of sharded models in which something fails on one rank: all ranks raise, and none is changed."""

import json
from pathlib import Path

import pytest
from tests import forked

pytest.importorskip("torch")

OLD, NEW = [0.0], [1.0]
LOADED = "<All keys matched successfully>"
DAMAGED = "have changed since they were written"


def answers(*scenarios):
    """What each rank answers in each scenario."""
    done = forked.run(Path(__file__).with_name("joint_job.py"), *scenarios, action="ignore", timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


FLIPPED = [
    *((suffix, how, "copy") for suffix in (".pt", ".safetensors", ".npz") for how in ("rows", "columns", "fsdp")),
    *((".pt", how, way) for how in ("both", "replicas", "whole", "fsdp") for way in ("copy", "assign")),
    *((".pt", how, "scarce") for how in ("rows", "columns")),
    *((".dcp", how, "copy") for how in ("rows", "columns", "both", "whole")),
    *((".dcp", how, "opened") for how in ("columns", "both")),
]


@pytest.mark.slow
def test_a_changed_byte_in_the_part_of_any_rank_is_an_error_of_all_ranks():
    """Whichever rank reads it, all raise and keep their old elements; without damage the same file is loaded by all."""
    [ranks] = answers(f"flipped:4:{';'.join(map(','.join, FLIPPED))}")
    for case, told_by_all in zip(FLIPPED, zip(*ranks, strict=True), strict=True):
        for *refused, accepted in told_by_all:
            assert accepted == [LOADED, NEW], case
            for told, elements in refused:
                assert told.startswith(("ChecksumError: new", "RankError: ")), (case, told)
                assert DAMAGED in told, case
                assert elements == OLD, case


@pytest.mark.slow
def test_a_rank_killed_at_any_instant_of_a_sharded_load_leaves_the_old_elements():
    """The others name it and keep their elements bit for bit, or all of them had finished; nobody waits for it."""
    ways = [(suffix, how) for suffix in (".pt", ".safetensors") for how in ("fsdp", "columns")]
    cases = [(*ways[n % 4], n % 3, 1.4 * n / 12) for n in range(12)]
    text = "killed:3:{},{},{},{:.3f}"
    for (*_, victim, _), told in zip(cases, answers(*(text.format(*case) for case in cases)), strict=True):
        survivors = [each for rank, each in enumerate(told) if rank != victim]
        assert survivors[0] == survivors[1]
        outcome, elements = survivors[0]
        assert (outcome, elements) == (LOADED, NEW) or (
            outcome == f"RankError: rank {victim} failed: its process has ended, or its connection was lost"
            and elements == [-0.5]
        )
