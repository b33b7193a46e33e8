"""Runs of several ranks in an object store: each rank uploads its part, and rank 0 completes the checkpoint."""

from pathlib import Path

import pytest
from tests import forked

from statedict import CheckpointManager
from statedict.formats import runs

pytest.importorskip("torch")
pytest.importorskip("fsspec")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
JOB = Path(__file__).with_name("ranks_job.py")


def job(run, rendezvous, environment, ranks=2):
    """What rank 0 of a job prints: the step that it began with, and the sum of all parameters at the end."""
    options = {"action": "ignore", "environment": environment}
    started = [forked.start(JOB, run, rendezvous, rank, ranks, **options) for rank in range(ranks)]
    ended = [process.wait() for process in started]
    assert [done.returncode for done in ended] == [0] * ranks, ended
    first, total = ended[0].stdout.split()
    return int(first), float(total)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_save_to_a_store_as_to_a_directory(s3, tmp_path):
    """The same script, the same numbers: saved by two ranks, and resumed by one."""
    run = "s3://bucket/run"
    for number, ranks in enumerate((2, 1)):
        local = job(tmp_path / "run", tmp_path / f"local-{number}", {}, ranks)
        assert job(run, tmp_path / f"s3-{number}", s3.environment, ranks) == local
        assert local[0] == 3 * number + 1
    reader = CheckpointManager(run)
    assert [saved.step for saved in reader.checkpoints] == [5, 6]
    written = reader._run.manifest(reader.latest.path)
    kept = CheckpointManager(tmp_path / "run")
    assert written.files.keys() == kept._run.manifest(kept.latest.path).files.keys()
    listed = {f"{run}/{entry.key.partition('/')[0]}" for entry in reader._run.bucket.list()}
    assert listed == {f"{run}/{runs.INDEX}", *(saved.path for saved in reader.checkpoints)}
