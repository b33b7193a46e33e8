"""Errors after a checkpoint was saved (flushing its directory entry, deleting older ones) are not errors of the save."""

import errno
import sys

import pytest
from tests.training.objects import Value, failing, needs_raising_profiles

from statedict import CheckpointManager, last
from statedict.errors import AfterSaveError, RunGoneError
from statedict.files import system
from statedict.training.resuming._find import verify
from statedict.training.run_directory import DirectoryRun, _changes


def refuse(*arguments):
    raise OSError(errno.EIO, "I/O error")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("step", [2, 1], ids=["new", "replacing"])
def test_a_name_that_cannot_be_flushed(tmp_path, monkeypatch, step, asynchronous):
    """The error says that the checkpoint was saved; older ones stay, because a power failure may lose the new one."""
    with CheckpointManager(tmp_path, keep=last(1), random=False, asynchronous=asynchronous) as manager:
        manager.save(1, value=Value(1))
        manager.wait()
        genuine = _changes.sync
        monkeypatch.setattr(_changes, "sync", lambda path: refuse() if path == tmp_path else genuine(path))
        with pytest.raises(
            AfterSaveError, match=f"step {step} was saved, but flushing its directory entry to the disk failed"
        ):
            manager.save(step, value=Value(7)), manager.wait()
        monkeypatch.undo()
        assert [saved.step for saved in manager.checkpoints] == sorted({1, step})
        value = Value()
        assert manager.resume(value=value).step == step
        assert value.array.tolist() == [7.0] * 3
        manager.save(3, value=Value(3))
        manager.wait()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "step-0000000003"}


@pytest.mark.parametrize("way", [pytest.param("exchanged", marks=pytest.mark.only_on("linux")), "renamed"])
def test_the_old_content_is_deleted_after_the_directory_is_flushed(tmp_path, monkeypatch, way):
    """Whichever way a step is replaced, the directory is flushed before the old content is deleted."""
    order = []
    sync, delete = _changes.sync, _changes._delete
    monkeypatch.setattr(_changes, "sync", lambda path: (order.append(("sync", path.name)), sync(path)))
    monkeypatch.setattr(_changes, "_delete", lambda path: (order.append(("delete", path.name[:5])), delete(path)))
    if way == "renamed":
        monkeypatch.setattr(system, "exchange", lambda one, other: False)
    with CheckpointManager(tmp_path / "run", random=False) as manager:
        manager.save(1, value=Value(1))
        order.clear()
        manager.save(1, value=Value(2))
        assert manager.resume(value=Value()).step == 1
    assert order[-2:] == [("sync", "run"), ("delete", ".savi" if way == "exchanged" else ".old-")]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_of_pruning_says_that_the_step_was_saved(tmp_path, monkeypatch, asynchronous):
    """The error says that the save succeeded; the next save deletes what could not be deleted."""
    with CheckpointManager(tmp_path, keep=last(1), random=False, asynchronous=asynchronous) as manager:
        manager.save(1, value=Value(1))
        manager.wait()
        monkeypatch.setattr(_changes, "remove", refuse)
        with pytest.raises(
            AfterSaveError, match=r"step 2 was saved, but deleting older checkpoints failed: .*I/O error"
        ):
            manager.save(2, value=Value(2)), manager.wait()
        monkeypatch.undo()
        assert manager.latest.step == 2
        manager.save(3, value=Value(3))
        manager.wait()
        assert [saved.step for saved in manager.checkpoints] == [3]


def test_an_error_of_a_retention_policy_has_a_note(tmp_path):
    """The policy's own error is raised, with a note that the checkpoint was saved."""

    def keep(saved):
        raise KeyError("loss")

    with CheckpointManager(tmp_path, keep=keep, random=False) as manager:
        with pytest.raises(KeyError, match="step 1 was saved, but deleting older checkpoints failed"):
            manager.save(1, value=Value(1))
        assert manager.latest.step == 1


@pytest.mark.only_on("linux", "macos")  # Windows does not move a directory with an open file
def test_a_directory_that_is_moved_right_after_the_save(tmp_path, monkeypatch):
    """RunGoneError says that the step was saved in the directory."""
    genuine = _changes.sync

    def sync(path):
        if path == tmp_path / "run" and (path / "step-0000000001").exists():
            path.rename(tmp_path / "away")
        genuine(path)

    monkeypatch.setattr(_changes, "sync", sync)
    with (
        CheckpointManager(tmp_path / "run", random=False) as manager,
        pytest.raises(RunGoneError, match="Step 1 was saved to it just before"),
    ):
        manager.save(1, value=Value(1))


CALLS = {"mkdir", "rename", "replace", "fsync", "pwritev", "posix_fallocate", "open", "listdir", "scandir", "stat"}


def is_a_call_on_files(function):
    return function.__name__ in CALLS and function.__module__ == "posix"


@needs_raising_profiles
@pytest.mark.parametrize("again", [False, True], ids=["new steps", "one step again"])
def test_an_error_of_each_system_call_of_a_save_says_whether_the_step_was_saved(tmp_path, again):
    """Nothing was saved, or the error says that the step was; all checkpoints are valid, and the next save works."""
    manager, count, told = CheckpointManager(tmp_path, keep=last(2), random=False), 1, 0
    manager.save(0, value=Value(0))
    while True:
        step = 1000 if again else count
        watch, seen = failing(is_a_call_on_files, count, count, errno.EIO)
        value = float(count)
        sys.setprofile(watch)
        try:
            manager.save(step, value=Value(value))
            saved = True
        except AfterSaveError:
            saved, told = True, told + 1
        except OSError:
            saved = False
        finally:
            sys.setprofile(None)
        found = Value()
        manager.resume(value=found)
        assert (found.array == value).all() == saved
        for each in manager.checkpoints:
            verify(DirectoryRun(each.path.parent), each.path)
        if seen[0] < count:
            break
        manager.save(step, value=Value(-value))
        count += 1
    assert count > 15, "the calls were not seen"
    # Where a directory cannot be flushed, replacing a step ends with its rename.
    assert told > 0 or (again and system.DIRECTORY is None)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == {".lock"}
    manager.close()
