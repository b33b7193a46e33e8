"""Every bit of a checkpoint is vouched for: a flip of any is found, and resume goes back to the checkpoint before."""

import shutil

import numpy as np
import pytest

from statedict import CheckpointManager
from statedict.errors import FormatError
from statedict.training.resuming._find import verify


class Value:
    """An object whose state is one array."""

    def __init__(self, value=-1.0):
        self.array = np.full(3, value)

    def state_dict(self):
        return {"array": self.array}

    def load_state_dict(self, state):
        self.array = np.asarray(state["array"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two checkpoints, each with metrics, plain and other values, and an object."""
    directory = tmp_path_factory.mktemp("run")
    with CheckpointManager(directory, random=False) as manager:
        for step in (1, 2):
            manager.save(step, {"loss": 1 / step}, value=Value(step), epoch=step, pair=(1, step))
    return directory


def flipped(raw, bit):
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("name", ["manifest.json", "value.pt", "values.pt"])
def test_a_flip_of_any_bit_is_found(run, name):
    """Of the manifest itself, and of every file that it lists."""
    path = run / "step-0000000002"
    raw = (path / name).read_bytes()
    try:
        for bit in range(0, 8 * len(raw), 1 if name == "manifest.json" else 5):
            with (path / name).open("r+b") as file:
                file.seek(bit // 8)
                file.write(flipped(raw, bit)[bit // 8 : bit // 8 + 1])
                file.flush()
                with pytest.raises(FormatError):
                    verify(path)
                file.seek(bit // 8)
                file.write(raw[bit // 8 : bit // 8 + 1])
    finally:
        (path / name).write_bytes(raw)
    assert verify(path).step == 2


@pytest.mark.parametrize("text", [b'"epoch": 2', b'"loss": 0.5', b'"value.pt"', b'"last"', b'"values"', b'"step": 2'])
def test_resume_goes_back_behind_a_flip_in_the_manifest(run, tmp_path, text):
    """Values, metrics, files, rules: what a flip made of them is not believed, and the damaged checkpoint is kept."""
    copy = shutil.copytree(run, tmp_path / "run")
    path = copy / "step-0000000002" / "manifest.json"
    raw = path.read_bytes()
    path.write_bytes(flipped(raw, 8 * (raw.index(text) + len(text) - 2)))
    with CheckpointManager(copy, random=False) as manager:
        value = Value()
        resumed = manager.resume(value=value)
        assert [saved.step for saved in manager.checkpoints] == [1]
    assert (resumed.step, resumed.values, resumed.metrics) == (1, {"epoch": 1, "pair": (1, 1)}, {"loss": 1.0})
    assert value.array.tolist() == [1.0] * 3
    assert [passed.step for passed in resumed.passed_over] == [2]
    assert resumed.passed_over[0].path.name.startswith("damaged-step-0000000002-")
