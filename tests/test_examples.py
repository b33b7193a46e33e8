"""The examples run as they stand, in an empty directory, and do what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests import forked
from torch import nn

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(tmp_path):
    """Run an example in an empty directory; gives what it printed."""

    def run(name, *arguments, before=""):
        if before:
            script = (
                f"{before}\nimport runpy, sys\nsys.argv = sys.argv[1:]\n"
                "runpy.run_path(sys.argv[0], run_name='__main__')"
            )
            command = [sys.executable, "-c", script, str(EXAMPLES / name), *map(str, arguments)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        else:
            done = forked.run(EXAMPLES / name, *arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


BLOCK_TORCH = "import sys; sys.modules['torch'] = None"


def test_every_example_is_run():
    """No example is without a test here."""
    tested = set(re.findall(r'example\("(\w+\.py)"', Path(__file__).read_text()))
    assert tested == {name for name in os.listdir(EXAMPLES) if name.endswith(".py")}


def test_train_and_resume(example, tmp_path):
    """A run in two parts ends with the weights of a run in one."""
    example("train_and_resume.py", "whole", 100)
    example("train_and_resume.py", "parts", 50)
    assert "starting at step 50" in example("train_and_resume.py", "parts", 100)
    fingerprints = [_state(tmp_path / run) for run in ("whole", "parts")]
    assert fingerprints[0] == fingerprints[1]


def _state(run):
    import statedict

    with statedict.CheckpointManager(run) as manager:
        model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
        assert manager.resume(model=model).step == 100
    return statedict.state_dict(model).fingerprint()


def test_new_head(example, tmp_path):
    """The backbone is the pretrained one, and the head is another."""
    example("new_head.py")
    before, after = (torch.load(tmp_path / name) for name in ("pretrained.pt", "fine-tuned.pt"))
    assert torch.equal(before["backbone.0.weight"], after["backbone.0.weight"])
    assert after["head.weight"].shape == (3, 16)


def test_look_inside(example, tmp_path):
    """The example lists the tensors of PyTorch's file without PyTorch."""
    torch.save({"model": nn.Linear(2, 3).state_dict(), "epoch": 1}, tmp_path / "model.pt")
    out = example("look_inside.py", "model.pt", before=BLOCK_TORCH)
    assert "state dicts at ['model']" in out
    assert "weight" in out


def test_average(example, tmp_path):
    """The average of three files is their average."""
    states = [nn.Linear(2, 3).state_dict() for _ in range(3)]
    for n, state in enumerate(states):
        torch.save(state, tmp_path / f"{n}.pt")
    example("average.py", "mean.pt", "0.pt", "1.pt", "2.pt", before=BLOCK_TORCH)
    found = torch.load(tmp_path / "mean.pt")
    torch.testing.assert_close(found["weight"], torch.stack([s["weight"] for s in states]).mean(0))


def test_without_torch(example, tmp_path):
    """The outputs are PyTorch's."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model = nn.ModuleDict({"features": features, "head": nn.Linear(128, 10)})
    torch.save(model.state_dict(), tmp_path / "digits.pt")
    printed = example("without_torch.py", "digits.pt", before=BLOCK_TORCH).splitlines()[-1]
    pixels = torch.linspace(0, 1, 128).reshape(2, 1, 8, 8)
    expected = model["head"](features(pixels))
    torch.testing.assert_close(torch.tensor(json.loads(printed)), expected.detach(), atol=2e-4, rtol=1e-4)


def test_train_with_jax(example, tmp_path):
    """The loss goes down, and PyTorch loads the model and goes on with the optimizer."""
    pytest.importorskip("jax")
    losses = [float(line.split()[-1]) for line in example("train_with_jax.py", "run.pt").splitlines()]
    assert losses[-1] < losses[0] / 100
    run = torch.load(tmp_path / "run.pt")
    model = nn.ModuleDict({"layers": nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))})
    model.load_state_dict(run["model"])
    optimizer = torch.optim.AdamW(model.named_parameters())
    optimizer.load_state_dict(run["optimizer"])
    assert optimizer.state[model["layers"][0].bias]["step"] == 301
