"""Long saves and resumes show how far they are on a terminal, and nothing anywhere else."""

import os
import pty
import subprocess
import sys

import pytest
from tests import forked

pytest.importorskip("torch")

SCRIPT = """
import sys, torch
from statedict import CheckpointManager
model = torch.nn.Linear(4200, 4200)
with CheckpointManager(sys.argv[1], durable=False) as manager:
    manager.save(1, model=model)
    manager.resume(model=model)
with CheckpointManager(sys.argv[1], durable=False, asynchronous=True) as manager:
    manager.save(2, model=model)
"""


def shown(directory):
    """What the script writes to a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SCRIPT, directory]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stderr=theirs, env=environment) as process:
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 65536):
                text += chunk
        except OSError:
            pass  # a terminal whose other side is gone
        os.close(ours)
    assert process.returncode == 0, text
    return text.decode()


@pytest.mark.slow
def test_a_bar_on_a_terminal(tmp_path):
    """A save, a resume, and an asynchronous save that is waited for at the end each have a bar."""
    text = shown(tmp_path)
    for words in ("saving step 1", "loading step 1", "saving step 2"):
        assert words in text


def test_nothing_anywhere_else(tmp_path):
    """Nothing is printed if standard error is not a terminal."""
    done = forked.run("-c", SCRIPT, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
