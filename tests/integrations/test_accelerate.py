"""accelerate: everything that an Accelerator has prepared or registered is saved and resumed."""

import pytest
from accelerate import Accelerator
from tests.integrations.trainings import accelerate

from statedict import CheckpointManager
from statedict.formats import runs
from statedict.integrations.accelerate import AcceleratorCheckpoints


def test_project_folder(tmp_path):
    """Checkpoints are in the project's folder, as many as its configuration says, with everything that was registered."""
    accelerate(tmp_path)
    saved = CheckpointManager(tmp_path / "checkpoints").checkpoints
    assert [each.step for each in saved] == [16, 18]
    names = {name for name in runs.read(saved[-1].path).objects if "/" in name}
    assert names == {"models/0", "optimizers/0", "schedulers/0", "custom/0", "custom/1"}


def test_no_folder():
    """Without a project folder or a directory, the error says to pass one."""
    with pytest.raises(ValueError, match="pass a directory, or Accelerator"):
        AcceleratorCheckpoints(Accelerator(cpu=True))
