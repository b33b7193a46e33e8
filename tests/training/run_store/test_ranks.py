"""Runs of several ranks in an object store: each rank uploads its part, and rank 0 completes the checkpoint."""

import json
from pathlib import Path

import pytest
from tests import forked
from tests.training.objects import computed_facts

from statedict import CheckpointManager
from statedict.files import open_bucket
from statedict.formats import runs

pytest.importorskip("torch")
pytest.importorskip("fsspec")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
JOB = Path(__file__).with_name("ranks_job.py")
RESUMING = Path(__file__).with_name("resume_job.py")


def printed(script, environment, *arguments):
    """What a job prints."""
    done = forked.run(script, *arguments, action="ignore", environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def job(run, environment, ranks):
    """The step that a job began with, and the sum of all parameters at the end."""
    first, total = printed(JOB, environment, run, ranks).split()
    return int(first), float(total)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_save_to_a_store_as_to_a_directory(s3, tmp_path):
    """A script gives the same numbers with a store as with a directory: saved by two ranks, and resumed by one."""
    run = "s3://bucket/run"
    for number, ranks in enumerate((2, 1)):
        local = job(tmp_path / "run", {}, ranks)
        assert job(run, s3.environment, ranks) == local
        assert local[0] == 3 * number + 1
    reader = CheckpointManager(run)
    assert [saved.step for saved in reader.checkpoints] == [5, 6]
    written = reader._run.manifest(reader.latest.path)
    kept = CheckpointManager(tmp_path / "run")
    assert written.files.keys() == kept._run.manifest(kept.latest.path).files.keys()
    assert written.files == computed_facts(reader.latest.path)
    listed = {f"{run}/{entry.key.partition('/')[0]}" for entry in reader._run.bucket.list()}
    assert listed == {f"{run}/{runs.INDEX}", *(saved.path for saved in reader.checkpoints)}


def damage(step):
    """Change a byte in the middle of the largest file of a step."""
    bucket = open_bucket("s3://bucket/run")
    largest = max(bucket.list(f"{runs.name_of(step)}-"), key=lambda entry: entry.nbytes)
    content = bytearray(bucket.get(largest.key)[0])
    content[len(content) // 2] ^= 1
    bucket.put(largest.key, bytes(content))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_fetch_each_byte_once_and_all_or_none_resume(s3):
    """Sharded objects are verified while they are loaded, by all ranks, and put back if the checkpoint is damaged."""

    def resumed(what):
        s3.sent = 0
        return json.loads(printed(RESUMING, s3.environment, "s3://bucket/run", what))

    assert resumed("save") == [{}, {}]
    nbytes = CheckpointManager("s3://bucket/run").latest.nbytes
    assert resumed("resume") == [{"step": 2, "passed": [], "value": 2.0}] * 2
    # The rest are the beginnings and ends of the files, and small tensors, which are read in blocks of 64 KiB.
    assert s3.sent < 1.7 * nbytes
    damage(2)
    assert resumed("again") == [{"step": 1, "passed": [2], "value": 1.0}] * 2
    damage(1)
    told = resumed("never")
    assert all("all checkpoints are damaged" in each.pop("error") for each in told)
    assert told == [{"value": 9.0, "moments": True}] * 2
