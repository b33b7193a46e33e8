"""Sharded models: every source, mesh and placement, with every option of a load.

The ranks run the functions of `sharded_job`, whose docstrings are the rules; each number of ranks is spawned once.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import forked

pytest.importorskip("torch")

FUNCTIONS = ["table", "assigned", "emptied", "converted", "live", "told", "damaged", "counted", "frugal"]


def job(folder, ranks, *functions):
    """What rank 0 returned for each function."""
    script = Path(__file__).with_name("sharded_job.py")
    done = forked.run(script, folder, ranks, *functions, action="ignore", timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]
    return dict(zip(functions, map(json.loads, done.stdout.splitlines())))


@pytest.fixture(scope="module", params=[2, 4])
def answers(request, tmp_path_factory):
    return request.param, job(tmp_path_factory.mktemp("sharded"), request.param, *FUNCTIONS)


def test_every_source_loads_into_every_sharded_model(answers):
    """All combinations of source, mesh and placement are equal to the whole tensors, bit for bit."""
    ranks, found = answers
    combinations = {2: 52, 4: 162} if found["table"].pop("ranks' safetensors") else {2: 48, 4: 144}
    assert found["table"] == {"wrong": [], "done": combinations[ranks]}


@pytest.mark.parametrize("function", ["assigned", "emptied", "converted", "live", "told", "damaged"])
def test_options_of_a_load_hold_for_sharded_models(answers, function):
    """Assignment, the meta device, rules, casts, policies, live sources, reports, dry runs, failures: see the function."""
    assert answers[1][function] == "done"


def test_a_rank_reads_the_bytes_that_it_keeps(answers):
    """At most 2% more bytes are read than kept: of row shards with their checksums, of columns of long rows without."""
    for how, (read, kept) in answers[1]["counted"].items():
        assert kept <= read <= 1.02 * kept, how


def test_a_load_needs_memory_for_the_shards_of_the_rank_only(answers):
    """For the old values, which are kept until all ranks agree; never for a whole tensor, or for a second copy."""
    extra, own, whole = answers[1]["frugal"]
    assert own == whole // answers[0]
    assert extra < own + 16 < whole
