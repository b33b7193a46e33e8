"""What follows a save that succeeded (flushing its name, deleting older ones) fails as that, not as the save."""

import errno
import os
import sys

import numpy as np
import pytest

from statedict import CheckpointManager, last
from statedict.errors import AfterSaveError, RunGoneError
from statedict.training.resuming._find import verify
from statedict.training.run_directory import _changes


class Value:
    """An object whose state is one array."""

    def __init__(self, value=-1.0):
        self.array = np.full(3, value)

    def state_dict(self):
        return {"array": self.array}

    def load_state_dict(self, state):
        self.array = np.asarray(state["array"])


def refuse(*arguments):
    raise OSError(errno.EIO, "I/O error")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("step", [2, 1], ids=["new", "replacing"])
def test_a_name_that_cannot_be_flushed(tmp_path, monkeypatch, step, asynchronous):
    """The checkpoint is there, and said to be; nothing older is deleted, since a power cut may lose the new one."""
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


@pytest.mark.parametrize("way", ["exchanged", "renamed"])
def test_what_is_replaced_is_deleted_when_the_new_name_is_on_the_disk(tmp_path, monkeypatch, way):
    """In both ways of replacing a step: first the directory is flushed, then the old content goes."""
    order = []
    sync, delete = _changes.sync, _changes._delete
    monkeypatch.setattr(_changes, "sync", lambda path: (order.append(("sync", path.name)), sync(path)))
    monkeypatch.setattr(_changes, "_delete", lambda path: (order.append(("delete", path.name[:5])), delete(path)))
    if way == "renamed":
        monkeypatch.setattr(_changes, "_exchange", lambda one, other: False)
    with CheckpointManager(tmp_path / "run", random=False) as manager:
        manager.save(1, value=Value(1))
        order.clear()
        manager.save(1, value=Value(2))
        assert manager.resume(value=Value()).step == 1
    assert order[-2:] == [("sync", "run"), ("delete", ".savi" if way == "exchanged" else ".old-")]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_pruning_that_fails_is_told_as_that(tmp_path, monkeypatch, asynchronous):
    """The save succeeded; what could not be deleted goes with the next one."""
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


def test_a_rule_of_retention_that_raises_is_told_as_that(tmp_path):
    """The caller's own error, with a note that the checkpoint was saved."""

    def keep(saved):
        raise KeyError("loss")

    with CheckpointManager(tmp_path, keep=keep, random=False) as manager:
        with pytest.raises(KeyError, match="step 1 was saved, but deleting older checkpoints failed"):
            manager.save(1, value=Value(1))
        assert manager.latest.step == 1


def test_a_directory_that_goes_right_after_the_save(tmp_path, monkeypatch):
    """The error says that the step was saved in it."""
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


def failing(count):
    """A profile function that lets the `count`-th call that changes the file system fail; and how many it has seen."""
    seen = [0]
    calls = {"mkdir", "rename", "replace", "fsync", "pwritev", "posix_fallocate", "open", "listdir", "scandir", "stat"}

    def watch(frame, event, function):
        if event == "c_call" and function.__name__ in calls and function.__module__ == "posix":
            seen[0] += 1
            if seen[0] == count:
                sys.setprofile(None)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    return watch, seen


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="a profile function that raises is taken away since Python 3.12"
)
@pytest.mark.parametrize("again", [False, True], ids=["new steps", "one step again"])
def test_a_fault_at_each_call_of_a_save_is_told_as_what_it_is(tmp_path, again):
    """Either nothing was saved, or the error says that the step was; what is there is whole, and the next save works."""
    manager, count, told = CheckpointManager(tmp_path, keep=last(2), random=False), 1, 0
    manager.save(0, value=Value(0))
    while True:
        step = 1000 if again else count
        watch, seen = failing(count)
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
            verify(each.path)
        if seen[0] < count:
            break
        manager.save(step, value=Value(-value))
        count += 1
    assert count > 15, "the calls were not seen"
    assert told > 0
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == {".lock"}
    manager.close()
