"""What is right for us is right for torch and safetensors too, and gives the same values there."""

from __future__ import annotations

import numpy as np
import pytest
from tests.hostile.cases import control
from tests.hostile.cases._case import Case

torch = pytest.importorskip("torch")

LOADERS = {
    "safetensors": lambda path: pytest.importorskip("safetensors.torch").load_file(path),
    "torchscript": lambda path: torch.jit.load(path).state_dict(),
    "npz": np.load,
    # Torch refuses tar files unless it may run what is in them; these are ours.
    "tar": lambda path: torch.load(path, weights_only=False),
    "zip": torch.load,
    "zip64": torch.load,
    "legacy": torch.load,
    "shared": torch.load,
    "expand": torch.load,
}
CASES = [pytest.param(case, id=case.name) for case in control.CASES if case.name.split("_")[1] in LOADERS]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_control_cases_load_equal_there(case: Case, tmp_path):
    """Every right file gives its values in the library whose format it is."""
    path = case.make(tmp_path)
    found = LOADERS[case.name.split("_")[1]](str(path))
    assert case.values == {name: found[name].tolist() for name in case.values}
    assert sorted(case.values) == sorted(found)


def test_a_distributed_checkpoint_is_one_for_torch(tmp_path):
    """torch.distributed.checkpoint reads the directory that we make by hand."""
    import torch.distributed.checkpoint as dcp

    state = {"model": {"w": torch.zeros(2, 4)}, "step": 0}
    [path] = [case.make(tmp_path) for case in control.CASES if case.name == "ok_distributed"]
    with pytest.warns(UserWarning, match="torch.distributed"):
        dcp.load(state, checkpoint_id=str(path))
    assert state["model"]["w"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert state["step"] == 7
