"""`after_save` is called with every checkpoint that is durable, and a checkpoint does not depend on what it does."""

import subprocess
import sys
import threading

import pytest
from tests.training.objects import Value
from tests.training.test_after import refuse

from statedict import CheckpointManager, last
from statedict.errors import AfterSaveError, SaveError
from statedict.training.run_directory import _changes

BOTH = pytest.mark.parametrize("asynchronous", [False, True])


@BOTH
def test_it_is_called_after_each_save(tmp_path, asynchronous):
    """With what the manager lists, when the directory is flushed and older ones are gone, in the thread that wrote it."""
    told, threads = [], set()

    def after_save(saved):
        threads.add(threading.current_thread())
        told.append((saved, [each.step for each in manager.checkpoints], (saved.path / "manifest.json").exists()))

    options = {"keep": last(1), "random": False, "asynchronous": asynchronous}
    with CheckpointManager(tmp_path, after_save=after_save, **options) as manager:
        for step in (1, 2):
            manager.save(step, {"loss": 1 / step}, value=Value(step))
        manager.wait()
        assert [(saved.step, saved.metrics, steps, there) for saved, steps, there in told] == [
            (1, {"loss": 1.0}, [1], True), (2, {"loss": 0.5}, [2], True),
        ]  # fmt: skip
        assert told[-1][0] == manager.latest
    assert (threading.main_thread() in threads) == (not asynchronous)


@BOTH
def test_if_it_raises_the_checkpoint_stays(tmp_path, asynchronous):
    """AfterSaveError has its error as the cause; an asynchronous save raises it at the next call. Later saves go on."""

    def after_save(saved):
        called.append(saved.step)
        if saved.step == 1:
            raise KeyError("bucket")

    called = []
    options = {"keep": last(1), "random": False, "asynchronous": asynchronous}
    with CheckpointManager(tmp_path, after_save=after_save, **options) as manager:
        with pytest.raises(
            AfterSaveError,
            match="step 1 was saved, but after_save failed: KeyError: 'bucket'; the checkpoint is complete",
        ) as told:
            manager.save(1, value=Value(1)), manager.wait()
        assert isinstance(told.value.__cause__, KeyError)
        assert (told.value.step, told.value.what) == (1, "after_save")
        assert manager.resume(value=Value()).step == 1
        manager.save(2, value=Value(2))
        manager.wait()
        assert ([saved.step for saved in manager.checkpoints], called) == ([2], [1, 2])


@BOTH
def test_it_may_use_the_manager(tmp_path, asynchronous):
    """Resume, list, pin and prune: while another thread waits for its save, too. To save is refused, and does not hang."""
    found = []

    def after_save(saved):
        value = Value()
        assert manager.resume(at=saved, value=value).step == saved.step
        found.append(value.array[0])
        if saved.step == 1:
            manager.pin(saved)
        manager.wait()
        manager.prune(last(1))
        with pytest.raises(SaveError, match="after_save= must not save with the same manager"):
            manager.save(9)

    options = {"keep": last(5), "random": False, "asynchronous": asynchronous}
    with CheckpointManager(tmp_path, after_save=after_save, **options) as manager:
        for step in (1, 2, 3):
            manager.save(step, value=Value(step))
        manager.wait()
        assert [saved.step for saved in manager.checkpoints] == [1, 3]
    assert found == [1.0, 2.0, 3.0]


@BOTH
def test_it_is_called_although_older_checkpoints_cannot_be_deleted(tmp_path, monkeypatch, asynchronous):
    """The checkpoint is durable all the same; both errors are there if it raises, too."""

    def after_save(saved):
        called.append(saved.step)
        if saved.step == 3:
            raise ValueError("no network")

    called = []
    options = {"keep": last(1), "random": False, "asynchronous": asynchronous}
    with CheckpointManager(tmp_path, after_save=after_save, **options) as manager:
        manager.save(1)
        manager.wait()
        monkeypatch.setattr(_changes, "remove", refuse)
        with pytest.raises(AfterSaveError, match="deleting older checkpoints failed"):
            manager.save(2), manager.wait()
        with pytest.raises(AfterSaveError, match="after_save failed: ValueError: no network") as told:
            manager.save(3), manager.wait()
        context = told.value.__cause__.__context__
        assert "deleting older checkpoints failed" in str(context)
    assert called == [1, 2, 3]


@BOTH
def test_a_checkpoint_that_is_not_durable_is_not_told(tmp_path, monkeypatch, asynchronous):
    """Neither one that could not be written, nor one whose directory entry could not be flushed."""
    called = []
    options = {"random": False, "asynchronous": asynchronous}
    with CheckpointManager(tmp_path, after_save=lambda saved: called.append(saved.step), **options) as manager:
        with pytest.raises(SaveError):
            manager.save(1, oops=lambda: None), manager.wait()
        manager.save(2)
        manager.wait()
        genuine = _changes.sync
        monkeypatch.setattr(_changes, "sync", lambda path: refuse() if path == tmp_path else genuine(path))
        with pytest.raises(AfterSaveError, match="flushing"):
            manager.save(3), manager.wait()
        monkeypatch.undo()
    assert called == [2]


def test_a_save_that_is_replaced_is_not_told(tmp_path):
    """With busy="replace", only what is on disk is."""
    called, go_on, began = [], threading.Event(), threading.Event()

    def after_save(saved):
        called.append(saved.step)
        began.set()
        go_on.wait()

    options = {"random": False, "asynchronous": True, "busy": "replace"}
    with CheckpointManager(tmp_path, after_save=after_save, **options) as manager:
        manager.save(1)
        began.wait()
        for step in (2, 3):
            manager.save(step)
        go_on.set()
    assert called == [1, 3]


ENDS = """
import os, signal, sys, threading
from statedict import CheckpointManager
began = threading.Event()
def after_save(saved):
    began.set()
    while not manager._on_sigterm._came:
        pass
    (saved.path.parent / "told").write_text(str(saved.step))
manager = CheckpointManager(sys.argv[1], random=False, asynchronous=True, on_sigterm=True, after_save=after_save)
manager.save(1)
began.wait()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_sigterm_waits_for_it(tmp_path):
    """The process ends when it has returned."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (-15, "")
    assert (tmp_path / "told").read_text() == "1"
