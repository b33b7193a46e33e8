"""Runs in object stores: what is saved is there, of two writers one wins, and no request that fails loses anything."""

import os
import subprocess
import sys
from contextlib import suppress
from secrets import token_hex

import pytest
from tests.s3 import once
from tests.training.run_store.faulty import Died, FaultyBucket

import statedict
from statedict import CheckpointManager, best, last
from statedict.errors import AfterSaveError, FormatError, LockedError, RemoteError, RunGoneError, UnknownNameError
from statedict.files import open_bucket
from statedict.formats import runs
from statedict.training import all_steps
from statedict.training.run_store import _lock, _run

np = pytest.importorskip("numpy")
pytest.importorskip("fsspec")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


class Value:
    """An object whose state is an array of one number."""

    def __init__(self, number=-1.0):
        self.array = np.full(3, float(number))

    def state_dict(self):
        return {"array": self.array}

    def load_state_dict(self, state):
        self.array = np.asarray(state["array"])


@pytest.fixture
def url():
    """The URL of an empty run in memory."""
    return f"memory://{token_hex(4)}/run"


@pytest.fixture(params=["s3", "memory"])
def any_url(request, url):
    """The URL of an empty run in each kind of store."""
    if request.param == "memory":
        return url
    request.getfixturevalue("s3")
    return "s3://bucket/run"


class OfOthers(set):
    """A set of locks of which none is this process's."""

    def __contains__(self, lock):
        return False


@pytest.fixture
def elsewhere(monkeypatch):
    """Locks of this process look like those of another one from now on."""
    return lambda: monkeypatch.setattr(_lock, "LIVE", OfOthers())


def objects(url):
    return [entry.key for entry in open_bucket(url).list()]


def files_of(url, *steps):
    """What may be in a run with these steps: their manifests and files, `.writer`, and nothing else."""
    listed = {key.partition("/")[0] for key in objects(url)} - {".writer", ".pins"}
    assert listed == {runs.name_of(step) for step in steps}
    for step in steps:
        within = {key.split("/")[1] for key in objects(url) if key.startswith(runs.name_of(step))} - {runs.MANIFEST}
        assert len(within) == 1
    return True


def resumed(url, **options):
    value = Value()
    found = CheckpointManager(url, random=False).resume(value=value, **options)
    return None if found is None else (found.step, value.array[0])


def test_a_run_is_saved_and_resumed(any_url):
    """Values, metrics, retention, pins and `best` work as in a directory, and other functions open the run by its URL."""
    with CheckpointManager(any_url, keep=last(2)) as manager:
        assert manager.resume(value=Value()) is None
        for step in range(5):
            manager.save(step, {"loss": 1 / (step + 1)}, value=Value(step), epoch=step)
            if step == 1:
                manager.pin(1)
        assert [(saved.step, saved.pinned) for saved in manager.checkpoints] == [(1, True), (3, False), (4, False)]
        assert manager.best("loss").path == f"{any_url}/step-0000000004"
        assert manager.rules == last(2)
    assert resumed(any_url) == (4, 4.0)
    assert resumed(any_url, at=1) == (1, 1.0)
    assert resumed(any_url, at=best("loss", mode="max")) == (1, 1.0)
    assert files_of(any_url, 1, 3, 4)
    with statedict.open(any_url) as checkpoint:
        assert checkpoint.notes == [f"step-0000000004 is the newest of 3 checkpoints in {any_url}"]
        assert [finding.level for finding in checkpoint.verify()] == ["note"]
    with CheckpointManager(any_url) as manager:
        manager.unpin(1)
        assert [saved.step for saved in manager.prune(last(1))] == [1, 3]
        with pytest.raises(UnknownNameError, match="the steps of the run"):
            manager.pin(3)
    assert files_of(any_url, 4)


def test_a_step_is_saved_again(any_url):
    """The new checkpoint replaces the old one, whose files are deleted by the next save at the latest."""
    with CheckpointManager(any_url, random=False) as manager:
        manager.save(1, value=Value(1))
        manager.save(1, value=Value(2))
        assert resumed(any_url) == (1, 2.0)
        manager.save(2, value=Value(3))
    assert files_of(any_url, 1, 2)


def test_a_run_is_resumed_from_another_place(any_url, tmp_path):
    """`resume(other)` takes a URL in a local run, and a path in a run of a store; the error for a step's URL says so."""
    with CheckpointManager(any_url, random=False) as manager:
        manager.save(3, value=Value(3))
    value = Value()
    local = CheckpointManager(tmp_path / "run", random=False)
    assert local.resume(any_url, value=value).step == 3
    assert local.resume(at=manager.latest, value=value).step == 3
    local.save(4, value=value)
    local.close()
    assert manager.resume(tmp_path / "run", value=value).step == 4
    with pytest.raises(ValueError, match=r"is a checkpoint; pass its run and its step: resume\('.*/run', at=3\)"):
        local.resume(f"{any_url}/step-0000000003", value=value)


def test_of_two_writers_the_later_one_wins_and_the_other_is_told(any_url, elsewhere):
    """The later of two writers wins, even during a save; the files of the other are deleted, and it cannot save again."""
    first = CheckpointManager(any_url, keep=all_steps(), random=False)
    first.save(1, value=Value(1))
    elsewhere()
    second = CheckpointManager(any_url, keep=all_steps(), random=False)

    class Meanwhile(Value):
        def state_dict(self):
            second.save(2, value=Value(20))
            return super().state_dict()

    for attempt in (lambda: first.save(2, value=Meanwhile(10)), lambda: first.save(3, value=Value(30))):
        with pytest.raises(
            LockedError, match=rf"being written by process {os.getpid()} on .*it has taken over the run"
        ):
            attempt()
    assert resumed(any_url) == (2, 20.0)
    second.save(4, value=Value(40))
    assert files_of(any_url, 1, 2, 4)
    first.close()
    second.save(5, value=Value(50))
    second.close()


def test_managers_of_one_process_hand_the_run_over(url):
    """A newer manager takes over the run, as in a directory, unless the older one is in its `with` block."""
    older = CheckpointManager(url, random=False)
    older.save(1)
    newer = CheckpointManager(url, random=False)
    newer.save(2)
    with newer, pytest.raises(LockedError, match="another manager in this process"):
        CheckpointManager(url, random=False).save(3)


def test_only_a_save_takes_a_run_over(url, elsewhere):
    """Deleting does not take over a run: the error says what to do if the other process has died."""
    manager = CheckpointManager(url, keep=all_steps(), random=False)
    manager.save(1, value=Value(1))
    manager.save(2, value=Value(2))
    elsewhere()
    with pytest.raises(LockedError, match=r"if that process has ended, .* or delete the object \.writer"):
        CheckpointManager(url).prune(last(1))
    assert resumed(url) == (2, 2.0)
    manager.save(3)
    manager.close()
    assert len(CheckpointManager(url).prune(last(1))) == 2


def test_a_writer_that_was_thought_dead_cannot_complete_its_checkpoint(url, elsewhere):
    """The manager that takes over deletes the files of the other, whose manifest must then never be written or replaced."""
    CheckpointManager(url, random=False).save(1, value=Value(1))
    elsewhere()
    late = CheckpointManager(url, random=False)
    late._ownership.hold(seize=True)
    drafts = [late._run.begin(step) for step in (1, 2)]
    for draft in drafts:
        with draft.create("value.pt") as stream:
            stream.write(b"late")
    elsewhere()
    with CheckpointManager(url, random=False) as manager:
        manager.save(3, value=Value(3))
    assert files_of(url, 1, 3)
    for draft in drafts:
        manifest = late._run.manifest(f"{url}/step-0000000003")
        late._run._held = lambda: late._run._lock  # it has looked just before
        with pytest.raises(OSError, match="another writer has changed this object"):
            draft.finish(manifest, durable=True)
    assert files_of(url, 1, 3)
    assert resumed(url, at=1) == (1, 1.0)


def test_a_half_deleted_checkpoint_is_not_there(url):
    """A checkpoint without its manifest is not listed, opened or reported as damaged; the next save deletes the rest."""
    with CheckpointManager(url, keep=all_steps(), random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step))
        open_bucket(url).delete([f"step-0000000002/{runs.MANIFEST}"])
        assert [saved.step for saved in manager.checkpoints] == [1]
        assert resumed(url) == (1, 1.0)
        with statedict.open(url) as checkpoint:
            assert checkpoint.path == f"{url}/step-0000000001"
        manager.save(3, value=Value(3))
    assert files_of(url, 1, 3)


def test_a_reader_whose_checkpoint_is_deleted_meanwhile_takes_another(url, monkeypatch):
    """A reader whose list is out of date lists the run again."""
    with CheckpointManager(url, keep=all_steps(), random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step))
        genuine = _run.StoreRun.steps

        def steps(self):
            monkeypatch.setattr(_run.StoreRun, "steps", genuine)
            found = genuine(self)
            assert manager._run.remove(f"{url}/step-0000000002")
            return found

        monkeypatch.setattr(_run.StoreRun, "steps", steps)
        assert resumed(url) == (1, 1.0)


def test_a_damaged_checkpoint_is_passed_over(url):
    """A flipped bit is detected; the older checkpoint is resumed, and the damaged one is never deleted."""
    with CheckpointManager(url, random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step))
        bucket = open_bucket(url)
        (key,) = [key for key in objects(url) if key.startswith("step-0000000002") and key.endswith(".pt")]
        raw = bucket.read(key, 0, 1 << 20)
        bucket.put(key, raw[:-1] + bytes([raw[-1] ^ 1]))
        found = manager.resume(value=Value())
        assert (found.step, [each.step for each in found.passed_over]) == (1, [2])
        assert "CRC-32" in found.passed_over[0].reason
        bucket.put(f"step-0000000001/{runs.MANIFEST}", b"{}")
        with pytest.raises(FormatError, match="all checkpoints are damaged"):
            manager.resume(value=Value())


def test_the_newest_checkpoint_is_found_in_a_list_that_is_out_of_date(url, monkeypatch):
    """The newest checkpoint is read by its key, and deleted checkpoints in an old list are ignored."""
    with CheckpointManager(url, keep=last(1), random=False) as manager:
        manager.save(1, value=Value(1))
        stale = FaultyBucket(open_bucket(url), stale=True)
        for step in (2, 3):
            manager.save(step, value=Value(step))
    monkeypatch.setattr(_run, "open_bucket", lambda url: stale)
    reader = CheckpointManager(url, random=False)
    assert [saved.step for saved in reader.checkpoints] == [3]
    assert resumed(url) == (3, 3.0)
    with reader:
        reader.save(4, value=Value(4))
    assert resumed(url) == (4, 4.0)


def test_an_old_list_hides_neither_the_newest_step_nor_one_that_is_asked_for(url, monkeypatch):
    """Also after a job that went back, whose save is the latest but not of the newest step."""
    stale = FaultyBucket(open_bucket(url), stale=True)
    with CheckpointManager(url, random=False) as manager:
        for step in (4, 3):
            manager.save(step, value=Value(step))
    monkeypatch.setattr(_run, "open_bucket", lambda url: stale)
    assert resumed(url) == (4, 4.0)
    assert resumed(url, at=3) == (3, 3.0)


def test_a_slow_reader_does_not_take_the_run_for_empty(url, monkeypatch):
    """Everything that it has listed is deleted before it looks: it lists again."""
    with CheckpointManager(url, keep=last(1), random=False) as manager:
        manager.save(1, value=Value(1))
        read, left = _run.read_writer, [lambda: [manager.save(step, value=Value(step)) for step in (2, 3)]]

        def slowly(bucket):
            found = read(bucket)
            if left:
                left.pop()()
            return found

        monkeypatch.setattr(_run, "read_writer", slowly)
        assert resumed(url) == (3, 3.0)


def test_a_claim_without_files_is_deleted(url, elsewhere):
    """Also by a manager that has looked at the run before it saves."""
    dead = CheckpointManager(url, random=False)
    dead._ownership.hold(seize=True)
    dead._run.begin(1)
    elsewhere()
    with CheckpointManager(url, random=False) as manager:
        assert manager.resume() is None
        with pytest.raises(UnknownNameError):
            manager.resume(at=1)
        manager.save(2, value=Value(2))
    assert files_of(url, 2)


def test_a_run_that_was_deleted_is_said(url):
    """As for a directory, a save raises RunGoneError if the user has deleted the run."""
    with CheckpointManager(url, random=False) as manager:
        manager.save(1)
        open_bucket(url).delete(objects(url))
        with pytest.raises(RunGoneError):
            manager.save(2)


@pytest.mark.parametrize("kind", ["refuse", "lose", "die", "die after"])
@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step"])
def test_a_request_that_fails_loses_nothing(kind, again, monkeypatch, elsewhere):
    """If any request of a save fails, saves that returned are complete, others are not visible or complete, and the next
    manager leaves only complete checkpoints."""
    at, ended = 1, False
    while not ended:
        url = f"memory://{token_hex(4)}/run"
        with CheckpointManager(url, keep=last(2), random=False) as manager:
            for step in (1, 2):
                manager.save(step, value=Value(step))
        bucket = FaultyBucket(open_bucket(url), at, kind)
        new = 2 if again else 3
        with monkeypatch.context() as patch:
            patch.setattr(_run, "open_bucket", lambda url, bucket=bucket: bucket)
            elsewhere()
            manager = CheckpointManager(url, keep=last(2), random=False)
            try:
                manager.save(new, value=Value(30))
                saved = True
            except AfterSaveError:
                saved = True
            except (RemoteError, Died):
                saved = None if bucket.dead else False
            ended = bucket.count < at
            with suppress(Died):
                manager.close()
        allowed = {True: [(new, 30.0)], False: [(2, 2.0)], None: [(2, 2.0), (new, 30.0)]}
        assert resumed(url) in allowed[saved], (at, saved)
        elsewhere()
        with CheckpointManager(url, keep=last(2), random=False) as manager:
            manager.save(7, value=Value(7))
            manager.save(8, value=Value(8))
        assert resumed(url) == (8, 8.0)
        assert files_of(url, 7, 8)
        at += 1
    assert at > 10


@pytest.mark.parametrize("kind", ["refuse", "lose", "cut"])
@pytest.mark.parametrize(("method", "ending"), [("PUT", ".pt"), ("PUT", ".json"), ("PUT", ".writer"), ("GET", ".pt")])
def test_faults_of_a_server_are_survived(s3, kind, method, ending):
    """With the client's retries and ours, every save succeeds despite faults of the server, and the run is resumed."""
    with CheckpointManager("s3://bucket/run", random=False) as manager:
        for step in (1, 2, 3):
            s3.fault = once(kind, method, ending)
            manager.save(step, value=Value(step))
            assert resumed("s3://bucket/run") == (step, float(step))
    s3.fault = lambda method, path: None
    assert files_of("s3://bucket/run", 1, 2, 3)


KILLED = """
import os, sys
import numpy as np
sys.path.insert(0, os.getcwd())
from statedict import CheckpointManager, last
from tests.training.run_store.test_run_store import Value
manager = CheckpointManager("s3://bucket/run", keep=last(2), random=False)
value = Value()
resumed = manager.resume(value=value)
step = 0 if resumed is None else resumed.step
assert value.array[0] == (step or -1), (value.array, step)
while True:
    step += 1
    manager.save(step, value=Value(step))
    print(step, flush=True)
"""


def killing(process, server, request):
    """A fault that kills the client."""
    return lambda method, path: process.kill() if len(server.requests) == request else None


@pytest.mark.slow
def test_killed_at_random_requests_a_run_goes_on(s3):
    """After each SIGKILL the next process resumes from the last step that was saved, with equal values."""
    import random

    drawn = random.Random(5)
    newest = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", KILLED],
            env={**os.environ, **s3.environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        s3.fault = killing(process, s3, len(s3.requests) + drawn.randrange(40, 120))
        said = [int(line) for line in process.stdout]
        process.stdout.close()
        assert process.wait() == -9
        if said:
            assert said[0] in (newest + 1, newest + 2)
            newest = said[-1]
    s3.fault = lambda method, path: None
    found = resumed("s3://bucket/run")
    assert found[0] in (newest, newest + 1)
    assert found[1] == found[0]
    with CheckpointManager("s3://bucket/run", keep=last(1), random=False) as manager:
        manager.save(10_000, value=Value(1))
    assert files_of("s3://bucket/run", 10_000)
