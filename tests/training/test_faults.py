"""What a failing system does to a run: nothing that was saved is lost, and the next save works once it can."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
import torch
from tests.forked import child

from statedict import CheckpointManager, last
from statedict.errors import DiskFullError, LockedError, RunDeniedError, RunGoneError

CALLS = {
    "open",
    "close",
    "mkdir",
    "rename",
    "replace",
    "fsync",
    "pwritev",
    "pwrite",
    "posix_fallocate",
    "unlink",
    "rmdir",
}

# A directory with an open file, such as a run's lock, cannot be renamed or deleted there.
not_on_windows = pytest.mark.only_on("linux", "macos")


def model_of(step):
    model = torch.nn.Linear(20, 20)
    torch.nn.init.constant_(model.weight, step)
    return model


def save(directory, step):
    with CheckpointManager(directory, keep=last(2), random=False) as manager:
        manager.save(step, model=model_of(step))


def die_at(count):
    """Kill this process as soon as its `count`-th call that changes the file system has returned."""
    seen = 0

    def watch(frame, event, function):
        nonlocal seen
        if event == "c_return" and function.__name__ in CALLS and function.__module__ == "posix":
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)


def dies(directory, step, count):
    """Save in a child that dies at its `count`-th call; whether it did."""

    def act():
        die_at(count)
        save(directory, step)
        sys.setprofile(None)

    status = os.waitpid(child(act), 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the save failed by itself"
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking a process with threads warns since Python 3.12")
def test_death_after_any_system_call_of_a_save_loses_nothing(tmp_path):
    """After each, resume succeeds from the last durable step with exact values, and litter does not grow."""
    for step in (0, 1, 2):
        save(tmp_path, step)
    step, count = 3, 1
    while dies(tmp_path, step, count):
        with CheckpointManager(tmp_path, keep=last(2), random=False) as manager:
            model = model_of(-1)
            resumed = manager.resume(model=model)
            assert resumed.step in (step - 1, step)
            assert not resumed.passed_over
            assert bool((model.weight == resumed.step).all())
        hidden = [path for path in tmp_path.iterdir() if path.name.startswith((".saving", ".trash", ".old"))]
        assert len(hidden) <= 1
        if resumed.step == step:
            step += 1
        count += 1
    assert count > 15, "the calls were not seen"


def vanishes_at(count, directory, away):
    """Rename `directory` as soon as this process's `count`-th call that changes the file system has returned."""
    seen = 0

    def watch(frame, event, function):
        nonlocal seen
        if event == "c_return" and function.__name__ in CALLS and function.__module__ == "posix":
            seen += 1
            if seen == count:
                os.rename(directory, away)

    sys.setprofile(watch)


@not_on_windows
def test_a_directory_that_vanishes_at_any_call_of_a_save(tmp_path):
    """The save says that the run is gone; when it is back all is there, and the next save works and tidies."""
    run, away = tmp_path / "run", tmp_path / "away"
    save(run, 0)
    told = 0
    with CheckpointManager(run, keep=last(2), random=False) as manager:
        for step in range(1, 100):
            vanishes_at(step, run, away)
            try:
                manager.save(step, model=model_of(step))
            except RunGoneError:
                told += 1
            finally:
                sys.setprofile(None)
            if not away.exists():
                break
            away.rename(run)
            model = model_of(-1)
            resumed = manager.resume(model=model)
            assert bool((model.weight == resumed.step).all())
            assert not resumed.passed_over
            manager.save(step, model=model_of(step))
            assert {path.name for path in run.iterdir() if path.name.startswith(".")} == {".lock"}
    assert told > 10


@not_on_windows
@pytest.mark.parametrize("what", ["run", "parent"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_directory_that_is_renamed_and_comes_back(tmp_path, what, asynchronous):
    """It is not made anew in the old place, where its checkpoints are not; back again, the run goes on."""
    run = tmp_path / "parent" / "run"
    place = {"run": run, "parent": run.parent}[what]
    with CheckpointManager(run, random=False, asynchronous=asynchronous) as manager:
        manager.save(1, model=model_of(1))
        manager.wait()
        place.rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(RunGoneError, match="deleted or renamed, or its disk was unmounted"):
                manager.save(2, model=model_of(2))
        with pytest.raises(RunGoneError):
            manager.resume(model=model_of(0))
        assert not place.exists()
        (tmp_path / "away").rename(place)
        manager.save(3, model=model_of(3))
        manager.wait()
        assert [saved.step for saved in manager.checkpoints] == [1, 3]


@not_on_windows
def test_a_directory_that_is_deleted(tmp_path):
    """An empty one in its place is taken as the order to go on without the old checkpoints, and locked as it must be."""
    with CheckpointManager(tmp_path / "run", random=False) as manager:
        manager.save(1, model=model_of(1))
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(RunGoneError, match="create an empty one"):
            manager.save(2, model=model_of(2))
        (tmp_path / "run").mkdir()
        manager.save(3, model=model_of(3))
        assert [saved.step for saved in manager.checkpoints] == [3]
        with pytest.raises(LockedError):
            save(tmp_path / "run", 4)


@not_on_windows
def test_a_directory_that_another_run_took(tmp_path):
    """The lock is of the directory that is there, not of the one that was."""
    with CheckpointManager(tmp_path / "run", random=False) as manager:
        manager.save(1, model=model_of(1))
        (tmp_path / "run").rename(tmp_path / "old")
        with CheckpointManager(tmp_path / "run", random=False) as other:
            other.save(7, model=model_of(7))
            with pytest.raises(LockedError):
                manager.save(2, model=model_of(2))


def save_and_wait(manager, step, model):
    manager.save(step, model=model)
    manager.wait()


@contextmanager
def small_disk(path):
    """A file system of 1 MB; a test that needs one is skipped where mounting is not allowed."""
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_loses_nothing_and_the_next_save_works(tmp_path, asynchronous):
    """On a small file system: the error says what is needed and free, the old checkpoint resumes, room makes it work."""
    with small_disk(tmp_path / "disk") as disk:
        with CheckpointManager(disk / "run", keep=last(1), random=False, asynchronous=asynchronous) as manager:
            manager.save(1, model=model_of(1))
            manager.wait()
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(900_000))
            with pytest.raises(DiskFullError, match=r"bytes are needed, but only .* are free.*Free some disk space"):
                save_and_wait(manager, 2, torch.nn.Linear(300, 300))
            assert [saved.step for saved in manager.checkpoints] == [1]
            assert manager.resume(model=model_of(0)).step == 1
            ballast.unlink()
            manager.save(3, model=model_of(3))
            manager.wait()
            assert [saved.step for saved in manager.checkpoints] == [3]
        assert {path.name for path in (disk / "run").iterdir()} == {".lock", "step-0000000003"}


def test_a_disk_without_room_for_a_name(tmp_path):
    """A new manager on a disk that is full to the last block resumes, and says what is missing when it saves."""
    with small_disk(tmp_path / "disk") as disk:
        save(disk / "run", 1)
        with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(bytes(4096)):
                pass
        with CheckpointManager(disk / "run", random=False) as manager:
            assert manager.resume(model=model_of(0)).step == 1
            with pytest.raises(DiskFullError, match="bytes are needed, but only 0 are free"):
                manager.save(2, model=model_of(2))
            (disk / "ballast").unlink()
            manager.save(3, model=model_of(3))


def test_a_disk_that_becomes_read_only(tmp_path):
    """The error says so; what is there resumes; writable again, the same manager saves."""
    with small_disk(tmp_path / "disk") as disk, CheckpointManager(disk / "run", random=False) as manager:
        manager.save(1, model=model_of(1))
        manager.close()  # a file that is open for writing keeps the disk from becoming read-only
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        try:
            with pytest.raises(RunDeniedError, match=r"Read-only file system.*make the disk writable"):
                manager.save(2, model=model_of(2))
            assert manager.resume(model=model_of(0)).step == 1
        finally:
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        manager.save(3, model=model_of(3))
        assert [saved.step for saved in manager.checkpoints] == [1, 3]
        manager.close()


DENIED = """
import os, tempfile, torch
from pathlib import Path
from statedict import CheckpointManager
from statedict.errors import RunDeniedError

model = torch.nn.Linear(20, 20)
parent = Path(tempfile.mkdtemp())
with CheckpointManager(parent / "imports") as manager:
    manager.save(1, model=model)
    manager.resume(model=model)
if os.geteuid() == 0:
    # Root may do everything: go on as somebody who may not. What is imported later might lie where he may not look.
    os.chown(parent, 65534, 65534)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
run = parent / "run"

def denied(act):
    try:
        act()
    except RunDeniedError as error:
        assert "Permission denied" in str(error) and "Give this user write permission" in str(error)
        return
    raise AssertionError("it was allowed")

manager = CheckpointManager(run)
parent.chmod(0o555)
denied(lambda: manager.save(1, model=model))      # no run yet, and none may be made
parent.chmod(0o755)
manager.save(1, model=model)
run.chmod(0o555)                                  # permission lost while the manager holds the lock
denied(lambda: manager.save(2, model=model))
assert manager.resume(model=model).step == 1
manager.close()
other = CheckpointManager(run)                    # a new manager in a read-only directory
denied(lambda: other.save(2, model=model))
assert other.resume(model=model).step == 1
other.close()
run.chmod(0o755)
manager.save(3, model=model)                      # allowed again
asynchronous = CheckpointManager(run, asynchronous=True)
manager.close()
run.chmod(0o555)
def later():
    asynchronous.save(4, model=model)
    asynchronous.wait()
denied(later)
run.chmod(0o755)
later()
assert [saved.step for saved in asynchronous.checkpoints] == [1, 3, 4]
assert {path.name for path in run.iterdir() if path.name.startswith(".")} == {".lock"}
asynchronous.close()
import shutil
shutil.rmtree(run)
"""


def test_a_directory_that_this_user_may_not_write_to():
    """Read-only from the start, or later: the error says what to do, what is there resumes, and the next save works."""
    done = subprocess.run([sys.executable, "-c", DENIED], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
