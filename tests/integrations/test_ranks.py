"""A plain loop on two ranks: DDP or FSDP2, and a ResumableLoader, as on the page about integrations."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests import forked

import statedict
from statedict import CheckpointManager

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


def ends(directory, *trainings):
    """What each rank of each training ends with."""
    done = forked.run("tests.integrations.ranks", directory, *trainings, action="default")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_ddp_resumes(tmp_path):
    """After an interruption in the middle of an epoch both ranks end with the same bits, each in its own part of the data,
    also if one of them has to load its position a second time."""
    whole, _, stalled = ends(tmp_path, "whole:ddp", "parts:ddp:8", "parts:stalls")
    assert stalled == whole
    assert whole[0]["tensors"] == whole[1]["tensors"]
    assert whole[0]["seen"] != whole[1]["seen"]


@pytest.mark.slow
def test_fsdp_resumes(tmp_path):
    """A sharded model ends with the same bits too, though the steps after its last save are lost and repeated."""
    whole, _, resumed = ends(tmp_path, "whole:fsdp", "parts:fsdp:9", "parts:fsdp")
    assert resumed == whole


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_killed_and_resumed(tmp_path, kind):
    """If SIGKILL ends one rank in the middle of a save, twice, the resumed training ends with the same bits."""
    kills = (f"parts:{kind}:{step}!" for step in (8, 12))
    whole, resumed = ends(tmp_path, f"whole:{kind}", *kills, f"parts:{kind}")
    assert resumed == whole


@pytest.mark.slow
def test_the_page_on_two_ranks(tmp_path):
    """The page's loop, started with torchrun, saves the same bits again after it has lost its last checkpoint."""
    page = (ROOT / "docs/how-to/integrations.md").read_text()
    (code,) = re.findall(r"<!-- script -->\n```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "loop.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "loop.py"]

    def last_step():
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        return CheckpointManager(tmp_path / "runs/plain").latest

    first = last_step()
    before = shutil.move(first.path, tmp_path / "before")
    again = last_step()
    assert again.step == first.step == 16
    for root in ("model", "optimizer"):
        assert not statedict.diff(before, again.path, root=root)
    for name in ("loader.pt", "random-00000.pt", "random-00001.pt"):
        assert (before / name).read_bytes() == (again.path / name).read_bytes()
