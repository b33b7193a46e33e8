"""What an asynchronous save costs training is measured by `python -m benchmarks.stall`; that it runs is a test."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_stall_of_every_case_is_measured(tmp_path):
    """At the smallest size each case has its row, and nothing is left behind."""
    command = [sys.executable, "-m", "benchmarks.stall", "--size", "tiny", "--rounds", "2", "--folder", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=280)
    assert [name in done.stdout for name in ("mid, with Adam", "many", "ratio")] == [True, True, True]
    assert list(tmp_path.iterdir()) == []
