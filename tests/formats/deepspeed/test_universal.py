"""Tests for universal checkpoints of DeepSpeed."""

import os

import pytest
import torch
from tests.formats.deepspeed.test_zero import LARGE, SMALL, TIED, equal
from tests.formats.deepspeed.zero_job import MOMENTS, Job

import statedict
from statedict.errors import FormatError, TruncatedError
from statedict.state import read_array

JOBS = {
    **{f"zero{stage}": Job(stage, groups=[LARGE, SMALL], tied=TIED) for stage in (1, 2, 3)},
    **{f"zero{stage}-frozen": Job(stage, groups=[LARGE[1:], SMALL], frozen=("odd",)) for stage in (1, 2, 3)},
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_universal_checkpoint_has_the_roots_of_the_original(job, tmp_path):
    """The tree is that of the checkpoint that it was made from."""
    original, universal = statedict.open(job.save(tmp_path)), statedict.open(job.save_universal(tmp_path))
    assert set(universal.object) == set(original.object)
    assert universal.object["optimizer"]["param_groups"] == original.object["optimizer"]["param_groups"]
    assert {name for name, value in job.model().items() if not equal(universal.state_dict().leaf(name), value)} == set()
    state, expected = universal.object["optimizer"]["state"], job.optimizer()
    assert set(state) == set(expected)
    for name, entry in expected.items():
        assert [key for key in entry if not equal(state[name][key], entry[key])] == []
    assert universal.verify() == []


def test_files_of_the_optimizer_are_opened_when_they_are_read(tmp_path):
    """A moment has the shape of the weights until its file is opened; if that has another, reading it is an error."""
    step = Job(2).save_universal(tmp_path)
    path = step / "zero" / "embed.weight" / "exp_avg.pt"
    path.write_bytes(b"not a checkpoint")
    checkpoint = statedict.open(step)
    entry = checkpoint.object["optimizer"]["state"]["embed.weight"]
    assert entry["exp_avg"].spec == checkpoint.state_dict().leaf("embed.weight").spec
    with pytest.raises(FormatError, match=r"exp_avg\.pt"):
        read_array(entry["exp_avg"])
    assert "exp_avg.pt" in checkpoint.verify()[0].where
    torch.save({"param": torch.zeros(3, 4)}, path)
    with pytest.raises(
        FormatError, match=r"expected a tensor of float32 \[11, 6\], found a tensor of float32 \[3, 4\]"
    ):
        read_array(statedict.open(step).object["optimizer"]["state"]["embed.weight"]["exp_avg"])


def test_damaged_model_states_are_named(tmp_path):
    """If the only file of model states cannot be read, its own error is raised."""
    step = Job(2).save_universal(tmp_path)
    (step / "mp_rank_00_model_states.pt").write_bytes(b"")
    with pytest.raises(TruncatedError, match=r"mp_rank_00_model_states\.pt"):
        statedict.open(step)


def test_a_missing_moment_is_named(tmp_path):
    """A file of the optimizer that other parameters of the group have is missing: it is named, and the rest loads."""
    step = Job(2).save_universal(tmp_path)
    (step / "zero" / "embed.weight" / "exp_avg.pt").unlink()
    checkpoint = statedict.open(step)
    entry = checkpoint.object["optimizer"]["state"]["embed.weight"]
    with pytest.raises(FormatError, match=r"embed\.weight/exp_avg\.pt.*missing"):
        read_array(entry["exp_avg"])
    assert equal(entry["exp_avg_sq"], Job(2).values["exp_avg_sq"]["embed.weight"])
    assert "embed.weight/exp_avg.pt is missing or damaged" in checkpoint.verify()[0].text


def test_a_missing_parameter_is_named(tmp_path):
    """A parameter whose file is missing raises an error if it is needed; others load."""
    step = Job(2).save_universal(tmp_path)
    (step / "zero" / "embed.weight" / "fp32.pt").unlink()
    checkpoint = statedict.open(step)
    with pytest.raises(FormatError, match=r"embed\.weight.*missing"):
        read_array(checkpoint.state_dict().leaf("embed.weight"))
    assert equal(checkpoint.state_dict().leaf("scale"), Job(2).values["fp32"]["scale"])
    assert "embed.weight/fp32.pt is missing or damaged" in checkpoint.verify()[0].text


def test_a_flat_parameter_of_another_size(tmp_path):
    """A flat tensor that does not have as many elements as the shape is refused."""
    step = Job(3).save_universal(tmp_path)
    torch.save(torch.zeros(5), step / "zero" / "embed.weight" / "fp32.pt")
    with pytest.raises(FormatError, match=r"it has 5 elements, but its shape is \[11, 6\]"):
        statedict.open(step)


def test_a_parameter_that_is_not_a_tensor(tmp_path):
    """A file without a tensor is refused by name."""
    step = Job(2).save_universal(tmp_path)
    torch.save({"param": "w"}, step / "zero" / "embed.weight" / "fp32.pt")
    with pytest.raises(FormatError, match="expected the tensor of a parameter, found 'w'"):
        statedict.open(step)


def test_descriptors_are_bounded(tmp_path):
    """Thousands of files do not need thousands of descriptors."""
    job = Job(2, shapes={f"{n}.weight": (2,) for n in range(150)})
    before = len(os.listdir("/dev/fd"))
    with statedict.open(job.save_universal(tmp_path)) as checkpoint:
        names = [f"{n}.weight" for n in range(150)]
        assert all(
            equal(checkpoint.object["optimizer"]["state"][n][k], job.values[k][n]) for n in names for k in MOMENTS
        )
        assert len(os.listdir("/dev/fd")) < before + 150
