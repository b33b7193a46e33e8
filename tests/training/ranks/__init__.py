"""Runs of several ranks, and what each of them answers: `python -m tests.training.ranks`."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def answers(directory, *phases):
    """What each rank of each phase answers; warnings are errors there, too."""
    command = [sys.executable, "-W", "error", "-m", __name__, directory, *phases]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
