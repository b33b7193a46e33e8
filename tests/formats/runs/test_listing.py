"""The checkpoints of other frameworks' runs are listed by their names, without opening one."""

import os
from datetime import UTC, datetime

import pytest
import torch
from tests.formats.runs import layouts

import statedict
from statedict.formats.runs import own_steps, steps

MAKERS = {
    "transformers": (layouts.transformers, [9, 500]),
    "accelerate": (layouts.accelerate, list(range(11))),
    "torchtitan": (layouts.torchtitan, [9, 10]),
    "torchtune": (layouts.torchtune, [0, 1]),
    "deepspeed": (layouts.deepspeed, [9, 10]),
    "megatron": (layouts.megatron, [9, 10]),
    "lightning": (layouts.lightning, [9, 18]),
}


@pytest.mark.parametrize("name", MAKERS)
def test_all_checkpoints_oldest_first(tmp_path, name):
    """Checkpoints are listed in the order of their numbers, and the newest is marked."""
    make, numbers = MAKERS[name]
    listed = steps(make(tmp_path))
    assert [step.number for step in listed] == numbers
    assert [step.is_newest for step in listed] == [False] * (len(numbers) - 1) + [True]
    assert all(os.path.exists(step.path) and step.nbytes > 0 for step in listed)


def test_a_checkpoint_is_described_by_its_files(tmp_path):
    """The time is that of the folder, and the size that of all files in it."""
    run = layouts.torchtune(tmp_path, epochs=(3,))
    (run / "epoch_3" / "recipe_state").mkdir()
    (run / "epoch_3" / "recipe_state" / "recipe_state.pt").write_bytes(bytes(1000))
    os.utime(run / "epoch_3", (86400, 86400))
    (step,) = steps(run)
    assert step.path == str(run / "epoch_3")
    assert step.time == datetime(1970, 1, 2, tzinfo=UTC)
    assert step.nbytes == 1000 + (run / "epoch_3" / "model-00001-of-00001.bin").stat().st_size


def test_metrics_of_the_last_evaluation(tmp_path):
    """Metrics come from the last evaluation in the history of transformers' Trainer, without times and rates."""
    assert [step.metrics for step in steps(layouts.transformers(tmp_path))] == [
        {"eval_loss": 1 / 9},
        {"eval_loss": 0.002},
    ]


@pytest.mark.parametrize(
    "history",
    [
        b"",
        b"[]",
        b"{",
        b'{"log_history": 3}',
        b'{"log_history": [1, {"eval_loss": "x"}, {"eval_a": [1]}]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_history_has_no_metrics(tmp_path, history):
    """The checkpoints are listed all the same."""
    run = layouts.transformers(tmp_path)
    (run / "checkpoint-500" / "trainer_state.json").write_bytes(history)
    assert [step.metrics for step in steps(run)] == [{"eval_loss": 1 / 9}, {}]


def test_metrics_in_a_name(tmp_path):
    """Lightning writes them there; the step is not a metric. `last` has no number, and is the newest."""
    names = ("epoch=9-step=90-val_loss=-0.31.ckpt", "last.ckpt")
    first, last = steps(layouts.lightning(tmp_path, names=names))
    assert (first.number, first.metrics, first.is_newest) == (90, {"epoch": 9, "val_loss": -0.31}, False)
    assert (last.number, last.metrics, last.is_newest) == (None, {}, True)


def test_a_marker_that_names_a_missing_checkpoint(tmp_path):
    """The others are listed, and none of them is the newest."""
    listed = steps(layouts.deepspeed(tmp_path, latest="global_step11"))
    assert [(step.number, step.is_newest) for step in listed] == [(9, False), (10, False)]


def test_our_own_checkpoints_are_listed_by_their_manager(tmp_path):
    """A run of our own, and an empty directory, are not listed as a run of another framework."""
    with statedict.CheckpointManager(tmp_path / "run", random=False, durable=False) as manager:
        manager.save(1, model=torch.nn.Linear(1, 1))
    (tmp_path / "empty").mkdir()
    assert steps(tmp_path / "run") == steps(tmp_path / "empty") == []
    (tmp_path / "run").rename(tmp_path / "checkpoints")
    assert steps(tmp_path) == []


def test_names_of_our_own_steps():
    """Only names that the manager gives to steps are its own: torchtitan's `step-10` is not."""
    names = ["step-0000000020", "step-3", "step-00000000003", "step-12345678901", ".saving-step-0000000004"]
    assert own_steps(names) == {20: "step-0000000020", 12345678901: "step-12345678901"}
