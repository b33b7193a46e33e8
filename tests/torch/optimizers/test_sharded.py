"""Optimizers of sharded models: every kind, source and placement, and all or nothing on all ranks.

The ranks run the functions of `sharded_job`, whose docstrings are the rules; each number of ranks is spawned once.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests import forked

import statedict

FUNCTIONS = ["table", "back", "refused", "parts", "counted", "tied", "cast"]
NAMES = [["up.weight", "down.weight", "fixed.weight"], ["up.bias", "down.bias", "fixed.bias"]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[2, 4], ids="{} ranks".format)
def told(request, tmp_path_factory):
    """What every rank returned for each function, and the folder."""
    folder = tmp_path_factory.mktemp("job")
    script = Path(__file__).with_name("sharded_job.py")
    done = forked.run(script, folder, request.param, *FUNCTIONS, action="ignore")
    assert done.returncode == 0, done.stderr[-5000:]
    return dict(zip(FUNCTIONS, map(json.loads, done.stdout.splitlines()))), folder


def test_every_source_into_every_sharded_optimizer(told):
    """Training continues as after PyTorch's own load, bit by bit."""
    for answer in told[0]["table"]:
        assert answer == {"wrong": [], "done": 34}


def test_the_state_of_ranks_goes_back_into_one_process(told):
    """The names are those of the model; what all ranks wrote is loaded into a plain optimizer."""
    answers, folder = told
    assert answers["back"] == [{"adamw": NAMES, "sgd": NAMES}] * len(answers["back"])
    for kind, make in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        model = torch.nn.ModuleDict(
            {"up": torch.nn.Linear(8, 16), "down": torch.nn.Linear(16, 5), "fixed": torch.nn.Linear(5, 3)}
        )
        groups = [[p for p in model.parameters() if p.ndim == ndim] for ndim in (2, 1)]
        optimizer = make([{"params": group} for group in groups], lr=1.0)
        assert statedict.load_state_dict(optimizer, folder / f"{kind}-ranks.dcp", model=model).ok
        expected = torch.load(folder / f"{kind}-ranks.pt")["state"]
        assert len(expected) == len(optimizer.state) == 4
        for name, state in expected.items():
            found = optimizer.state[model.get_parameter(name)]
            assert found.keys() == state.keys()
            assert all(torch.equal(found[key], value) for key, value in state.items())
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.05]


def test_a_load_that_fails_on_one_rank_changes_none(told):
    """A shape that does not fit, a file that is absent or damaged on one rank, a hook that raises there, an element that
    would become infinite on one rank: all are told."""
    first, second, *_ = told[0]["refused"]
    assert all(answer["same"] for answer in told[0]["refused"])
    for answer in (first, second):
        assert "up.weight: its 'exp_avg' must have shape [16, 8]" in answer["told"][0]
    kinds = [[text.partition(":")[0] for text in answer["told"][1:]] for answer in (first, second)]
    assert kinds[0] == ["RankError", "ChecksumError", "RankError", "LoadError"]
    assert kinds[1] == ["FileNotFoundError", "ChecksumError", "ZeroDivisionError", "RankError"]
    assert '"up.weight.exp_avg": casting float32 from the checkpoint to float16' in first["told"][4]
    assert all("rank 1 failed" in first["told"][number] for number in (1, 3))


def test_a_part_is_not_taken_for_the_whole(told):
    """A plain optimizer gets replicated state, and refuses state of which this process has a part."""
    for replicated, text in told[0]["parts"]:
        assert replicated is True
        assert "parameter 0 of group 0.exp_avg: only a part of this tensor of shape [8, 3]" in text


def test_each_rank_reads_its_own_bytes(told):
    """Each rank reads at most 2 % more bytes than it keeps of row shards."""
    for read, kept in told[0]["counted"]:
        assert kept <= read <= 1.02 * kept


def test_ties_and_casts(told):
    """A tied parameter has one state under any of its names; only moments are cast."""
    assert set(told[0]["tied"]) == {True}
    assert all(answer == ["torch.float32", 8] for answer in told[0]["cast"])
