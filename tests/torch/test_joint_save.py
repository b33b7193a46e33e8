"""Saves of sharded models by all ranks: the functions of `joint_save_job`, whose docstrings are the rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import forked

pytest.importorskip("torch")

FUNCTIONS = ["table", "trees", "part_of_mesh", "replicated", "refused", "own_bytes"]


def job(folder, ranks, *functions):
    """Run functions on so many ranks; return the process."""
    script = Path(__file__).with_name("joint_save_job.py")
    return forked.run(script, folder, ranks, *functions, action="ignore", timeout=900)


@pytest.fixture(scope="module", params=[2, 4])
def answers(request, tmp_path_factory):
    done = job(tmp_path_factory.mktemp("saved"), request.param, *FUNCTIONS)
    assert done.returncode == 0, done.stderr[-5000:]
    return request.param, dict(zip(FUNCTIONS, map(json.loads, done.stdout.splitlines())))


def test_all_ranks_write_the_bytes_that_one_process_would_write(answers):
    """Every mesh, placement, format and number of files."""
    ranks, found = answers
    assert found["table"] == {"wrong": [], "done": {2: 20, 4: 44}[ranks]}


@pytest.mark.parametrize("function", FUNCTIONS[1:])
def test_saves_of_sharded_tensors(answers, function):
    """Trees, parts of meshes, replicated tensors, failures, the bytes that a rank writes: see the function."""
    assert answers[1][function] == "done"


@pytest.mark.parametrize(("function", "victim"), [("killed", -1), ("leader_killed", 0)])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_that_is_killed_leaves_the_old_file(tmp_path, function, victim, ranks):
    """All other ranks raise an error that names it, and no new file is left."""
    done = job(tmp_path, ranks, function)
    survivors = {f"survived-{rank}" for rank in range(ranks) if rank != victim % ranks}
    assert {path.name for path in tmp_path.glob("survived-*")} == survivors, done.stderr[-5000:]


def test_a_rank_that_saves_alone_is_told(tmp_path):
    """A rank that saves alone gets an error that says that all ranks must call save."""
    done = job(tmp_path, 2, "late")
    assert (tmp_path / "told").exists(), done.stderr[-5000:]
