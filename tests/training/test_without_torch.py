"""A run of a module without PyTorch: audited, saved, resumed where torch is not installed."""

import subprocess
import sys

import pytest

import statedict

SCRIPT = """
import sys
if sys.argv[2] == "blocked":
    sys.modules["torch"] = None  # as if it were not installed
import numpy as np
import statedict
from statedict import nn

class Sampler:
    def __init__(self, order):
        self.order = order
    def state_dict(self):
        return {"order": self.order}
    def load_state_dict(self, state):
        self.order = state["order"]

def training(value):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for name, array in statedict.state_dict(model).items():
        array[...] = value
    return {"model": model, "parts": [Sampler(np.full(3, value))]}

for run, asynchronous in ((sys.argv[1], False), (sys.argv[1], True), ("memory://bucket/run", False)):
    saved, again = training(1), training(0)
    with statedict.CheckpointManager(run, asynchronous=asynchronous) as manager:
        manager.save(1, epoch=3, table=np.arange(2), **saved)
        resumed = manager.resume(**again)
    assert list(resumed.reports) == ["model", "parts/0"]
    assert statedict.state_dict(saved["model"]).fingerprint() == statedict.state_dict(again["model"]).fingerprint()
    assert again["parts"][0].order.tolist() == [1, 1, 1]
    assert resumed.values["epoch"] == 3 and isinstance(resumed.values["table"], np.ndarray)
try:
    statedict.audit(saved["model"])
except statedict.StateDictError as error:
    print(type(error).__name__, error)
print("torch" in sys.modules and sys.modules["torch"] is not None)
"""


@pytest.mark.parametrize(
    ("torch", "expected"),
    [
        (
            "blocked",
            ("MissingDependencyError audit needs the package 'torch': pip install 'statedict[torch]'\n", "False\n"),
        ),
        ("there", ("NotAStateError audit() expects a torch.nn.Module, not ", "True\n")),
    ],
)
def test_a_module_without_torch_is_saved_and_resumed(tmp_path, torch, expected):
    """All that the manager does, it does without torch; `audit`, which is for PyTorch's modules, says so."""
    if torch == "there":
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, tmp_path, torch], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected[0])
    assert done.stdout.endswith(expected[1])


def test_audit_is_for_modules_of_pytorch():
    """Anything else is refused in words."""
    pytest.importorskip("torch")
    with pytest.raises(statedict.errors.NotAStateError, match=r"audit\(\) expects a torch.nn.Module, not 5 \(int\)"):
        statedict.audit(5)
