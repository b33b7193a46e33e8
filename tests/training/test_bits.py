"""Checksums cover every bit of a checkpoint: a flipped bit is found, and `resume` uses the previous checkpoint."""

import shutil

import pytest
from tests.training.objects import Value

from statedict import CheckpointManager
from statedict.errors import FormatError
from statedict.training.resuming._find import verify
from statedict.training.run_directory import DirectoryRun


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
    """A flipped bit of the manifest, or of a file that it lists, raises FormatError."""
    path = run / "step-0000000002"
    raw = (path / name).read_bytes()
    try:
        for bit in range(0, 8 * len(raw), 1 if name == "manifest.json" else 5):
            with (path / name).open("r+b") as file:
                file.seek(bit // 8)
                file.write(flipped(raw, bit)[bit // 8 : bit // 8 + 1])
                file.flush()
                with pytest.raises(FormatError):
                    verify(DirectoryRun(path.parent), path)
                file.seek(bit // 8)
                file.write(raw[bit // 8 : bit // 8 + 1])
    finally:
        (path / name).write_bytes(raw)
    assert verify(DirectoryRun(path.parent), path).step == 2


@pytest.mark.parametrize("text", [b'"epoch": 2', b'"loss": 0.5', b'"value.pt"', b'"last"', b'"values"', b'"step": 2'])
def test_resume_skips_a_checkpoint_with_a_flipped_bit_in_the_manifest(run, tmp_path, text):
    """Changed values, metrics, file names and policies are not used; the damaged checkpoint is renamed, not deleted."""
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
