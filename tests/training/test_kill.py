"""A slice of what `python -m tests.training.kill` does at length."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("way", [[], ["--asynchronous"]], ids=["synchronous", "asynchronous"])
def test_killed_at_random_instants_of_its_saves_a_run_goes_on(tmp_path, way):
    """After each SIGKILL: resumed from the last durable step with exact values, and no litter."""
    command = [sys.executable, Path(__file__).with_name("kill.py"), "--times", "25", "--folder", tmp_path, *way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0  wrong" in done.stdout
