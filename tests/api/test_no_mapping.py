"""No job maps a file unless it was asked to: reading a mapping of a file that was truncated meanwhile kills the process."""

import os
import sys

import numpy as np
import pytest

import statedict
from statedict import nn

# The hook cannot be removed.
MAPPED, WATCHED = [], []


def _on_audit(event, arguments):
    if WATCHED and event == "mmap.__new__" and arguments[0] != -1:
        MAPPED.append(os.readlink(f"/proc/self/fd/{arguments[0]}"))


sys.addaudithook(_on_audit)


def manage(folder):
    model = nn.Linear(600, 500)
    with statedict.CheckpointManager(folder / "run") as manager:
        manager.save(1, model=model)
        return manager.resume(model=model)


def convert(folder):
    with statedict.open(folder / "m.pt") as checkpoint:
        assert not checkpoint.verify()
        statedict.save(checkpoint.state_dict(), folder / "other.safetensors", max_shard_size="1MB")
    return statedict.load(folder / "other.safetensors.index.json", backend="numpy")


JOBS = {
    "load": lambda folder: statedict.load(folder / "m.pt", backend="numpy"),
    "load safetensors": lambda folder: statedict.load(folder / "m.safetensors", backend="numpy"),
    "load into a model": lambda folder: statedict.load_state_dict(nn.Linear(600, 500), folder / "m.pt"),
    "convert": convert,
    "diff": lambda folder: statedict.diff(folder / "m.pt", folder / "m.safetensors"),
    "merge": lambda folder: statedict.merge([folder / "m.pt", folder / "m.safetensors"]).numpy(),
    "manager": manage,
}


@pytest.fixture
def folder(tmp_path):
    state = {"weight": np.ones((500, 600), np.float32), "bias": np.ones(500, np.float32)}
    for name in ("m.pt", "m.safetensors"):
        statedict.save(state, tmp_path / name)
    return tmp_path


def mapped_in(folder, job):
    """The files that a job maps, for a moment or for what it returns."""
    MAPPED.clear()
    WATCHED.append(True)
    try:
        result = job(folder)
        with open("/proc/self/maps") as maps:
            return {*MAPPED, *(line.split()[-1] for line in maps if str(folder) in line)}, result
    finally:
        WATCHED.clear()


@pytest.mark.only_on("linux")
@pytest.mark.parametrize("job", JOBS)
def test_nothing_is_mapped(folder, job):
    """Loading, converting, comparing, merging and resuming map no file."""
    assert mapped_in(folder, JOBS[job])[0] == set()


@pytest.mark.only_on("linux")
def test_a_mapping_that_was_asked_for_is_seen(folder):
    """`mmap=True` maps the file, so the test above would notice."""
    found, _ = mapped_in(folder, lambda folder: statedict.load(folder / "m.pt", mmap=True, backend="numpy"))
    assert found == {str(folder / "m.pt")}
