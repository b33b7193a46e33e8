"""A plain loop on two ranks: DDP or FSDP2, and a ResumableLoader, as on the page about integrations."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ends(directory, *trainings):
    """What each rank of each training ends with."""
    command = [sys.executable, "-m", "tests.integrations.ranks", directory, *trainings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_ddp_resumes(tmp_path):
    """Interrupted in the middle of an epoch, both ranks end with the same bits, each in its own part of the data; also if
    one of them has to load its position a second time, alone."""
    whole, _, stalled = ends(tmp_path, "whole:ddp", "parts:ddp:8", "parts:stalls")
    assert stalled == whole
    assert whole[0]["tensors"] == whole[1]["tensors"]
    assert whole[0]["seen"] != whole[1]["seen"]


@pytest.mark.slow
def test_fsdp_resumes(tmp_path):
    """Of a sharded model too, and with steps after the save, which are lost and repeated."""
    whole, _, resumed = ends(tmp_path, "whole:fsdp", "parts:fsdp:9", "parts:fsdp")
    assert resumed == whole
