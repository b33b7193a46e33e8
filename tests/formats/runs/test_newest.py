"""A run is opened at its newest checkpoint, by the rule of the framework that saved it."""

import shutil

import numpy as np
import pytest
import torch
from tests.formats.runs import layouts

import statedict
from statedict import formats
from statedict.errors import FormatError, UnknownFormatError

RUNS = {
    "transformers": (layouts.transformers, "", "checkpoint-500", 500),
    "accelerate": (layouts.accelerate, "", "checkpoints/checkpoint_10", 10),
    "accelerate, inside": (layouts.accelerate, "checkpoints", "checkpoints/checkpoint_10", 10),
    "torchtitan": (layouts.torchtitan, "", "checkpoint/step-10", 10),
    "torchtune": (layouts.torchtune, "", "epoch_1", 1),
    "deepspeed": (layouts.deepspeed, "", "global_step10", 1),
    "megatron": (layouts.megatron, "", "iter_0000010", 10),
    "lightning": (layouts.lightning, "", "lightning_logs/version_0/checkpoints/epoch=1-step=18.ckpt", 1),
    "lightning, logs": (
        layouts.lightning,
        "lightning_logs",
        "lightning_logs/version_0/checkpoints/epoch=1-step=18.ckpt",
        1,
    ),
    "lightning, version": (
        layouts.lightning,
        "lightning_logs/version_0",
        "lightning_logs/version_0/checkpoints/epoch=1-step=18.ckpt",
        1,
    ),
}


def weight(checkpoint):
    return checkpoint.state_dict().numpy()["weight"][0, 0]


@pytest.mark.parametrize("name", RUNS)
def test_the_newest_checkpoint_of_each_framework(tmp_path, name):
    """The newest checkpoint is found by the layout, at each level that is documented; a note names it."""
    make, inside, newest, value = RUNS[name]
    with formats.open(make(tmp_path / "run") / inside) as checkpoint:
        assert checkpoint.path.startswith(str(tmp_path / "run" / newest))
        assert weight(checkpoint) == value
        last = newest.rpartition("/")[2]
        assert checkpoint.notes[-1].startswith(f"{last} is the newest of ")


def test_a_marker_goes_before_the_highest_step(tmp_path):
    """DeepSpeed's `latest` and Megatron's iteration name the newest, which may be an older step, or any other tag."""
    with formats.open(layouts.deepspeed(tmp_path / "d", latest="global_step9")) as checkpoint:
        assert weight(checkpoint) == 0
    with formats.open(layouts.deepspeed(tmp_path / "t", tags=("best", "global_step9"), latest="best")) as checkpoint:
        assert weight(checkpoint) == 0
    with formats.open(layouts.megatron(tmp_path / "m", latest="9")) as checkpoint:
        assert weight(checkpoint) == 9
    layouts.save(tmp_path / "m" / "release" / "weights.pt", layouts.model(7))
    (tmp_path / "m" / "latest_checkpointed_iteration.txt").write_text("release")
    with formats.open(tmp_path / "m") as checkpoint:
        assert weight(checkpoint) == 7


@pytest.mark.parametrize("latest", ["global_step11", "../run/global_step9", "", "x" * 5000, "\x00"])
def test_a_marker_of_a_missing_checkpoint_is_an_error(tmp_path, latest):
    """DeepSpeed fails then, and so does this: the error names what is missing, and the newest that is there."""
    run = layouts.deepspeed(tmp_path / "run", latest=latest)
    with pytest.raises(FormatError, match=r"latest: it names the checkpoint '.*', which is missing") as caught:
        formats.open(run)
    assert str(caught.value).endswith(f"(the newest one here is {run / 'global_step10'}: open it)")
    shutil.rmtree(run / "global_step10")
    shutil.rmtree(run / "global_step9")
    with pytest.raises(FormatError, match=r"which is missing\Z"):
        formats.open(run)


def test_the_newest_checkpoint_cannot_be_opened(tmp_path):
    """The error names it, and the next older one; no other checkpoint is opened instead."""
    run = layouts.torchtune(tmp_path / "run", epochs=(0, 1, 2))
    (run / "epoch_2" / "model-00001-of-00001.bin").write_bytes(b"")
    with pytest.raises(FormatError) as caught:
        formats.open(run)
    assert str(run / "epoch_2" / "model-00001-of-00001.bin") in str(caught.value)
    assert f"epoch_2 is the newest checkpoint of {run}; the next older one is {run / 'epoch_1'}" in str(caught.value)


def test_lightning_resumes_from_last(tmp_path):
    """`last.ckpt` is the newest, whatever the steps of the best are; the last of several that were not replaced."""
    names = ("epoch=1-step=18.ckpt", "epoch=1-step=18-v1.ckpt", "last.ckpt", "last-v1.ckpt")
    for count, value in enumerate(range(4), 1):
        with formats.open(layouts.lightning(tmp_path / str(count), names=names[:count])) as checkpoint:
            assert weight(checkpoint) == value


def test_the_newest_version_of_lightnings_logger(tmp_path):
    """The highest version that has checkpoints; the number counts, not the text."""
    for version in (9, 10):
        layouts.lightning(tmp_path, version)
    (tmp_path / "lightning_logs" / "version_11").mkdir()
    with formats.open(tmp_path) as checkpoint:
        assert weight(checkpoint) == 101


def test_metrics_in_the_names_of_lightning(tmp_path):
    """Names without a step are ordered by the epoch; other checkpoints beside them are not steps."""
    names = ("epoch=9-val_loss=0.31.ckpt", "epoch=10-val_loss=0.50.ckpt")
    with formats.open(layouts.lightning(tmp_path, names=names)) as checkpoint:
        assert weight(checkpoint) == 1


def test_the_model_of_a_finished_run(tmp_path):
    """Weights that transformers' Trainer saved beside the checkpoints are the run's model, as in `from_pretrained`."""
    run = layouts.transformers(tmp_path / "run")
    layouts.save(run / "pytorch_model.bin", layouts.model(3))
    with formats.open(run) as checkpoint:
        assert weight(checkpoint) == 3
        note = "the weights of this directory were read, not those of its checkpoints, of which checkpoint-500 is the newest"
        assert checkpoint.notes[-1] == note
    (run / "pytorch_model.bin").rename(run / "training_args.bin")
    with formats.open(run) as checkpoint:
        assert weight(checkpoint) == 500


def test_several_files_that_may_be_weights_do_not_hide_the_run(tmp_path):
    """If no name marks one of several files as the model's, the newest checkpoint is read, and a note lists the files."""
    run = layouts.transformers(tmp_path / "run")
    for name in ("a.pt", "b.pt"):
        layouts.save(run / name, layouts.model(3))
    with formats.open(run) as checkpoint:
        assert weight(checkpoint) == 500
        assert checkpoint.notes[-1].endswith("no name marks one as the model's: a.pt, b.pt")


def test_nothing_else_is_searched(tmp_path):
    """A checkpoint in any other folder is not found: the error is that there is none."""
    layouts.transformers(tmp_path / "run" / "checkpoints" / "other")
    with pytest.raises(UnknownFormatError, match="this directory does not contain a checkpoint"):
        formats.open(tmp_path / "run")
    layouts.save(tmp_path / "run" / "net.pt", layouts.model(2))
    with formats.open(tmp_path / "run") as checkpoint:
        assert (weight(checkpoint), checkpoint.notes) == (2, [])


# our own runs


@pytest.fixture
def own(tmp_path):
    with statedict.CheckpointManager(tmp_path / "run", random=False, durable=False) as manager:
        for step in (1, 2, 3):
            manager.save(step, {"loss": 1 / step}, model=torch.nn.Linear(2, 1), epoch=step)
    return tmp_path / "run"


def test_the_newest_step_of_our_own_run(own):
    """The newest step is open, and a note says which."""
    with formats.open(own) as checkpoint:
        assert (checkpoint.path, checkpoint.object["epoch"]) == (str(own / "step-0000000003"), 3)
        assert checkpoint.notes == [f"step-0000000003 is the newest of 3 checkpoints in {own}"]
        assert [finding.level for finding in checkpoint.verify()] == ["note"]


def test_damaged_newer_steps_are_passed_over(own):
    """The newest step with a valid manifest is opened; `verify` says what is wrong with newer ones."""
    (own / "step-0000000003" / "manifest.json").write_bytes(b"")
    shutil.copytree(own / "step-0000000001", own / "step-0000000004")
    with formats.open(own) as checkpoint:
        assert checkpoint.path == str(own / "step-0000000002")
        assert checkpoint.notes[0].endswith("newer ones are damaged: step-0000000004, step-0000000003")
        errors = {finding.where: finding.text for finding in checkpoint.verify() if finding.level == "error"}
    assert errors.keys() == {"step-0000000004", "step-0000000003"}
    assert "the manifest is for step 1, but the directory is named step-0000000004" in errors["step-0000000004"]
    assert "the manifest is empty" in errors["step-0000000003"]
    assert [saved.step for saved in statedict.CheckpointManager(own).checkpoints] == [1, 2]


def test_a_run_without_a_valid_step(own):
    """An error with the reason for each; it is damage if a manifest is damaged, and not if all are missing."""
    for step in own.glob("step-*"):
        (step / "manifest.json").unlink()
    with pytest.raises(UnknownFormatError, match=r"no checkpoint of this run is valid: .*the manifest is missing"):
        formats.open(own)
    (own / "step-0000000001" / "manifest.json").write_bytes(b"{}")
    with pytest.raises(FormatError, match=r"no checkpoint of this run is valid") as caught:
        formats.open(own)
    assert type(caught.value) is FormatError or isinstance(caught.value, UnknownFormatError)


def test_a_run_without_steps(tmp_path):
    """A manager that has saved nothing leaves its lock: the error says that the run is empty."""
    (tmp_path / ".lock").touch()
    with pytest.raises(UnknownFormatError, match="this run does not have a checkpoint yet"):
        formats.open(tmp_path)


def test_the_newest_step_of_our_own_cannot_be_opened(own):
    """The error names the next older one."""
    (own / "step-0000000003" / "model.pt").write_bytes(np.zeros(9).tobytes())
    with pytest.raises(FormatError, match=f"the next older one is {own / 'step-0000000002'}"):
        formats.open(own)


def test_steps_within_steps_are_not_followed_for_ever(tmp_path):
    """A folder can be its own step by a symbolic link, or contain others to any depth: this is an error, not a crash."""
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "step-1").symlink_to(".")
    (tmp_path / "deep" / "/".join(["step-1"] * 200)).mkdir(parents=True)
    for name in ("loop", "deep"):
        with pytest.raises(FormatError, match="more than 16 folders deep"):
            statedict.open(tmp_path / name)
