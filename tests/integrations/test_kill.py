"""Each integration, killed in the middle of saves and resumed, ends like an uninterrupted training."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.integrations.trainings import TRAININGS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_killed_and_resumed(name):
    """A training that SIGKILL ends in the middle of saves, and that is started again, ends with the same bits."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.integrations.kill", name, "--times", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
