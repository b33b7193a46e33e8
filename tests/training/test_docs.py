"""The training script of the documentation: forty lines, killed and resumed, and none the worse for it."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from tests import forked

import statedict

pytest.importorskip("torch")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "resume.md"


@pytest.fixture
def script():
    return re.search(r"<!-- script -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


def train(script, directory, until=None):
    """Run the script, to its end or until a checkpoint of step `until` is there; then it is killed."""
    directory.mkdir(exist_ok=True)
    process = forked.start("-c", script, cwd=directory)
    while until and process.returncode is None:
        if (directory / f"runs/a/step-{until:010d}").exists():
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    return process.wait().returncode


def fingerprint(directory, step):
    with statedict.open(directory / f"runs/a/step-{step:010d}/model.pt") as checkpoint:
        return checkpoint.state_dict().fingerprint()


def test_the_manager_takes_five_of_forty_lines(script):
    """What the page says of the script: forty lines, of which five are the manager's."""
    lines = [line for line in script.splitlines() if line.strip()]
    assert len(lines) <= 40
    own = [line for line in lines if re.search("CheckpointManager|manager|resumed", line)]
    assert len(own) == 5


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_bits(script, tmp_path):
    """A kill later the model is that of a training that nobody disturbed, bit by bit."""
    assert train(script, tmp_path / "straight") == 0
    assert train(script, tmp_path / "killed", until=140) == -signal.SIGKILL
    assert train(script, tmp_path / "killed") == 0
    assert fingerprint(tmp_path / "straight", 300) == fingerprint(tmp_path / "killed", 300)
    hidden = [path.name for path in (tmp_path / "killed/runs/a").iterdir() if path.name.startswith(".")]
    assert hidden == [".lock"]
