"""Runs in object stores: what is saved is there, of two writers one wins, and no request that fails loses anything."""

import os
import signal
from contextlib import suppress
from functools import partial
from secrets import token_hex

import pytest
from tests import forked
from tests.s3 import once
from tests.training.run_store.faulty import Died, FaultyBucket

import statedict
from statedict import CheckpointManager, best, last
from statedict.errors import (
    AfterSaveError,
    ConflictError,
    FileChangedError,
    FormatError,
    LockedError,
    RemoteError,
    RunDeniedError,
    RunGoneError,
    UnknownFormatError,
    UnknownNameError,
)
from statedict.files import Frame, open_bucket
from statedict.formats import runs
from statedict.training import all_steps
from statedict.training.run_store import _index, _lock, _run

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
    """What may be in a run with these steps: one folder for each with what its manifest lists, the index, nothing else."""
    run = CheckpointManager(url)._run
    listed = set(objects(url)) - {runs.INDEX}
    found = run.steps()
    assert [*found] == [*steps]
    wanted = {(place, name) for place in found.values() for name in (runs.MANIFEST, *run.manifest(place).files)}
    assert listed == {f"{place}/{name}".removeprefix(f"{url}/") for place, name in wanted}
    return True


def place_of(url, step):
    return CheckpointManager(url)._run.steps()[step]


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
        assert manager.best("loss").path == place_of(any_url, 4)
        assert manager.rules == last(2)
    assert resumed(any_url) == (4, 4.0)
    assert resumed(any_url, at=1) == (1, 1.0)
    assert resumed(any_url, at=best("loss", mode="max")) == (1, 1.0)
    assert files_of(any_url, 1, 3, 4)
    with statedict.open(any_url) as checkpoint:
        assert checkpoint.notes == [
            f"{place_of(any_url, 4).rpartition('/')[2]} is the newest of 3 checkpoints in {any_url}"
        ]
        assert [finding.level for finding in checkpoint.verify()] == ["note"]
    with CheckpointManager(any_url) as manager:
        manager.unpin(1)
        assert [saved.step for saved in manager.prune(last(1))] == [1, 3]
        with pytest.raises(UnknownNameError, match=f"the steps of {any_url}"):
            manager.pin(3)
    assert files_of(any_url, 4)


def test_a_step_is_saved_again(any_url):
    """The new checkpoint replaces the old one, whose files are deleted; its folder has another name."""
    with CheckpointManager(any_url, random=False) as manager:
        manager.save(1, value=Value(1))
        before = manager.latest.path
        manager.save(1, value=Value(2))
        assert manager.latest.path != before
        assert files_of(any_url, 1)
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
    for act in (partial(local.resume, value=value), CheckpointManager):
        with pytest.raises(
            UnknownFormatError,
            match=r"this is a checkpoint, not a run: pass its run, '.*/run', and to resume from it, at=3",
        ):
            act(manager.latest.path)


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
    """Deleting does not take over a run, and works beside the process that saves in it, or has died there."""
    manager = CheckpointManager(url, keep=all_steps(), random=False)
    manager.save(1, value=Value(1))
    manager.save(2, value=Value(2))
    elsewhere()
    assert [saved.step for saved in CheckpointManager(url).prune(last(1))] == [1]
    assert resumed(url) == (2, 2.0)
    manager.save(3)
    manager.close()
    assert files_of(url, 2, 3)


def test_a_writer_that_was_thought_dead_cannot_complete_its_checkpoint(url, elsewhere):
    """The manager that takes over deletes the files of the other, whose manifest must then never be written or replaced."""
    CheckpointManager(url, random=False).save(1, value=Value(1))
    elsewhere()
    late = CheckpointManager(url, random=False)
    late._ownership.hold(seize=True)
    drafts = [late._run.begin(step, durable=True) for step in (1, 2)]
    for draft in drafts:
        draft.write("value.pt", [Frame(4, lambda: b"late")])
    elsewhere()
    with CheckpointManager(url, random=False) as manager:
        manager.save(3, value=Value(3))
    assert files_of(url, 1, 3)
    for draft in drafts:
        manifest = late._run.manifest(place_of(url, 3))
        with pytest.raises(LockedError, match="it has taken over the run"):
            draft.finish(manifest)
        assert late._run.steps().keys() == {1, 3}
    with CheckpointManager(url, random=False) as manager:
        manager.save(4)
    assert files_of(url, 1, 3, 4)
    assert resumed(url, at=1) == (1, 1.0)


def test_a_process_that_was_paused_while_it_deleted_deletes_nothing_new(url, elsewhere, monkeypatch):
    """A process that wakes up after another one has taken over the run and saved the step again deletes nothing."""
    paused = CheckpointManager(url, keep=last(1), random=False)
    paused.save(1, value=Value(1))
    delete = paused._run.bucket.delete

    def late(keys):
        elsewhere()
        with CheckpointManager(url, keep=all_steps(), random=False) as manager:
            manager.save(1, value=Value(10))
        delete(keys)

    monkeypatch.setattr(paused._run.bucket, "delete", late)
    paused.save(2, value=Value(2))
    assert files_of(url, 1, 2)
    assert resumed(url, at=1) == (1, 10.0)


def test_a_half_deleted_checkpoint_is_not_there(url, monkeypatch):
    """A checkpoint whose files were not deleted yet is not listed or opened; the next save deletes the rest."""
    with CheckpointManager(url, keep=all_steps(), random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step))
        monkeypatch.setattr(manager._run.bucket, "delete", lambda keys: None)
        assert manager._run.remove(place_of(url, 2))
        monkeypatch.undo()
        assert [saved.step for saved in manager.checkpoints] == [1]
        assert resumed(url) == (1, 1.0)
        with statedict.open(url) as checkpoint:
            assert checkpoint.path == place_of(url, 1)
        manager.save(3, value=Value(3))
    assert files_of(url, 1, 3)


def test_a_checkpoint_that_was_deleted_by_hand_is_passed_over(url):
    """If a checkpoint was deleted by hand, the run resumes from an older one."""
    with CheckpointManager(url, keep=all_steps(), random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step))
    bucket = open_bucket(url)
    bucket.delete([key for key in objects(url) if key.startswith(runs.name_of(2))])
    with CheckpointManager(url, random=False) as manager:
        assert [saved.step for saved in manager.checkpoints] == [1]
        found = manager.resume(value=Value())
        assert (found.step, [each.step for each in found.passed_over]) == (1, [2])
        with statedict.open(url) as checkpoint:
            assert "newer ones are damaged" in checkpoint.notes[0]
        manager.save(2, value=Value(20))
    assert resumed(url) == (2, 20.0)


def test_a_run_without_its_index_is_listed(url, tmp_path):
    """A run that was copied from a directory, or has lost its index, has the newest folder of each step."""
    with CheckpointManager(tmp_path / "run", random=False) as manager:
        manager.save(1, value=Value(1))
    bucket = open_bucket(url)
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            bucket.put(path.relative_to(tmp_path / "run").as_posix(), path.read_bytes())
    assert resumed(url) == (1, 1.0)
    with CheckpointManager(url, random=False) as manager:
        manager.save(2, value=Value(2))
    bucket.delete([runs.INDEX])
    assert resumed(url) == (2, 2.0)
    with CheckpointManager(url, random=False) as manager:
        manager.save(3, value=Value(3))
    assert list(CheckpointManager(url)) == [1, 2, 3]


def test_a_downloaded_run_is_continued_in_a_directory(url, tmp_path):
    """The folders of a downloaded run keep their names; later steps have those of a directory."""
    with CheckpointManager(url, random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step))
    bucket = open_bucket(url)
    for key in objects(url):
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(bucket.get(key)[0])
    assert resumed(tmp_path) == (2, 2.0)
    with statedict.open(tmp_path) as checkpoint:
        assert checkpoint.metadata["statedict.step"] == "2"
    with CheckpointManager(tmp_path, keep=last(2), random=False) as manager:
        for step in (2, 3):
            manager.save(step, value=Value(10 * step))
        assert [saved.step for saved in manager.checkpoints] == [2, 3]
    assert resumed(tmp_path, at=2) == (2, 20.0)


def test_a_damaged_index_is_an_error(url):
    """If the index is damaged, resuming and saving raise an error that says what to do."""
    with CheckpointManager(url, random=False) as manager:
        manager.save(1, value=Value(1))
    bucket = open_bucket(url)
    raw, _ = bucket.get(runs.INDEX)
    for damaged, reason in ((raw.replace(b"step-", b"stap-"), "CRC-32"), (b"", "checksum")):
        bucket.put(runs.INDEX, damaged)
        for attempt in (lambda: resumed(url), lambda: CheckpointManager(url).save(2), lambda: statedict.open(url)):
            with pytest.raises(FormatError, match=rf"the index of the run is damaged: .*{reason}.*delete it"):
                attempt()


def test_a_reader_whose_checkpoint_is_deleted_meanwhile_takes_another(url, monkeypatch):
    """A reader whose list is out of date lists the run again."""
    with CheckpointManager(url, keep=all_steps(), random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step))
        genuine = _run.StoreRun.steps

        def steps(self):
            monkeypatch.setattr(_run.StoreRun, "steps", genuine)
            found = genuine(self)
            assert manager._run.remove(found[2])
            return found

        monkeypatch.setattr(_run.StoreRun, "steps", steps)
        assert resumed(url) == (1, 1.0)


def test_a_damaged_checkpoint_is_passed_over(url):
    """A flipped bit is detected; the older checkpoint is resumed, and the damaged one is never deleted."""
    with CheckpointManager(url, random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step))
        bucket = open_bucket(url)
        (key,) = [key for key in objects(url) if key.startswith(runs.name_of(2)) and key.endswith(".pt")]
        raw = bucket.read(key, 0, 1 << 20)
        bucket.put(key, raw[:-1] + bytes([raw[-1] ^ 1]))
        found = manager.resume(value=Value())
        assert (found.step, [each.step for each in found.passed_over]) == (1, [2])
        assert "CRC-32" in found.passed_over[0].reason
        bucket.put(f"{place_of(url, 1).removeprefix(f'{url}/')}/{runs.MANIFEST}", b"{}")
        with pytest.raises(FormatError, match="all checkpoints are damaged"):
            CheckpointManager(url, random=False).resume(value=Value())


class RestlessBucket:
    """A store whose run has another index at each request, whose folders are gone by then."""

    url = "s3://bucket/run"

    def __init__(self):
        self.requests = 0

    def get(self, key):
        self.requests += 1
        if key != runs.INDEX:
            raise FileNotFoundError(key)
        return runs.RunIndex({1: runs.unique_name(1)}, number=self.requests).dump(), str(self.requests)

    def put(self, key, data, *, if_match):
        raise ConflictError(f"{self.url}/{key}")


def test_a_run_that_changes_all_the_time_is_an_error():
    """Listing or changing a run that changes all the time ends in an error."""
    run = _run.StoreRun("", RestlessBucket())
    for act in (run.saved, partial(run.pin, 1)):
        with pytest.raises(FileChangedError, match=r"run/\.run: .*during each of 100 attempts"):
            act()


def test_the_newest_checkpoint_is_found_in_a_list_that_is_out_of_date(url, monkeypatch):
    """The index is read by its key, and deleted checkpoints in an old list are ignored."""
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
    """An old list hides no step, even after a job that went back, whose save is the latest but not of the newest step."""
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
        read, left = _index.StoredIndex.read, [lambda: [manager.save(step, value=Value(step)) for step in (2, 3)]]

        def slowly(self):
            found = read(self)
            if left:
                left.pop()()
            return found

        monkeypatch.setattr(_index.StoredIndex, "read", slowly)
        assert resumed(url) == (3, 3.0)


def test_a_store_that_may_only_be_read(url, monkeypatch):
    """The checkpoints of a read-only store can be read; each change raises an error that names the run."""
    with CheckpointManager(url, random=False) as manager:
        manager.save(1, epoch=1)
        manager.save(2, epoch=2)

    def denied(*_, **__):
        raise PermissionError(13, "Access Denied")

    reader = CheckpointManager(url, random=False)
    monkeypatch.setattr(reader._run.bucket, "put", denied)
    assert reader.resume().values == {"epoch": 2}
    for change in (partial(reader.save, 3, epoch=3), partial(reader.pin, 1), partial(reader.prune, last(1))):
        with pytest.raises(RunDeniedError, match=f"{url}.*not writable"):
            change()
    assert list(CheckpointManager(url)) == [1, 2]


def test_an_unfinished_save_is_deleted(url, elsewhere):
    """A save deletes what an unfinished save has left, also if the manager has listed the run before."""
    dead = CheckpointManager(url, random=False)
    dead._ownership.hold(seize=True)
    dead._run.begin(1, durable=True).write("value.pt", [Frame(10, lambda: b"unfinished")])
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
    assert at > 8


@pytest.mark.parametrize("kind", ["refuse", "lose", "cut"])
@pytest.mark.parametrize(("method", "ending"), [("PUT", ".pt"), ("PUT", ".json"), ("PUT", ".run"), ("GET", ".pt")])
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
    return lambda method, path: os.kill(process.pid, signal.SIGKILL) if len(server.requests) == request else None


@pytest.mark.slow
def test_killed_at_random_requests_a_run_goes_on(s3):
    """After each SIGKILL the next process resumes from the last step that was saved, with equal values."""
    import random

    drawn = random.Random(5)
    newest = 0
    for _ in range(4):
        process = forked.start("-c", KILLED, action="ignore", environment=s3.environment)
        s3.fault = killing(process, s3, len(s3.requests) + drawn.randrange(15, 45))
        done = process.wait()
        assert done.returncode == -signal.SIGKILL, done.stderr
        said = list(map(int, done.stdout.split()))
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
