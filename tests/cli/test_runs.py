"""statedict runs: what a run has on disk, and what rules would keep of it."""

import json

import pytest

import statedict


@pytest.fixture
def run(tmp_path):
    with statedict.CheckpointManager(tmp_path / "run", keep=statedict.last(9), random=False) as manager:
        for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
            manager.save(step, {"loss": loss}, epoch=step)
    return tmp_path / "run"


def test_list(call, run):
    """Every checkpoint with its step, size and metrics; the newest last."""
    ended = call("runs", run)
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.splitlines()]
    assert [row[0] for row in rows[1:-1]] == ["10", "20", "30"]
    assert "loss 1" in ended.out
    assert rows[-1][:2] == ["3", "checkpoints,"]


def test_rules(call, run):
    """Rules show what they would keep, and delete nothing."""
    options = ["--keep-last", "1", "--keep-best", "loss"]
    told = json.loads(call("runs", run, *options, "--json").out)["checkpoints"]
    assert [(fact["step"], fact["kept"], fact["metrics"]) for fact in told] == [
        (10, False, {"loss": 3.0}), (20, True, {"loss": 1.0}), (30, True, {"loss": 2.0}),
    ]  # fmt: skip
    assert call("runs", run, "--keep-every", "20").out.count("would be deleted") == 1
    assert len(json.loads(call("runs", run, "--json").out)["checkpoints"]) == 3


def test_an_empty_directory(call, tmp_path):
    """A directory without checkpoints is an empty list, and stays as it is."""
    assert call("runs", tmp_path).out == "0 checkpoints, 0 B\n"
    assert list(tmp_path.iterdir()) == []


def test_mistakes(call, tmp_path):
    """A directory that is not there is a mistake: exit code 2."""
    ended = call("runs", tmp_path / "nowhere")
    assert (ended.code, ended.out) == (2, "")
    assert "nowhere" in ended.err
