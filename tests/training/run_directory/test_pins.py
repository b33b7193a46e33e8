"""A pinned checkpoint is never deleted, whoever pins it and when."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.training.objects import Counter

from statedict import CheckpointManager, best, last
from statedict.errors import RunDeniedError, UnknownNameError
from statedict.training import all_steps
from statedict.training.run_directory import _changes, _pins


def steps(manager):
    return [saved.step for saved in manager.checkpoints]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_pin_stays_in_the_directory(tmp_path, asynchronous):
    """Another manager knows of it, and it lasts until it is taken away; a later save of the step is pinned, too."""
    options = {"keep": last(1), "random": False, "asynchronous": asynchronous}
    with CheckpointManager(tmp_path, **options) as manager:
        manager.save(1, {"loss": 1.0}, counter=Counter(1))
        manager.pin(1)
        manager.save(2, {"loss": 2.0}, counter=Counter(2))
    with CheckpointManager(tmp_path, **options) as manager:
        assert [(saved.step, saved.pinned) for saved in manager.checkpoints] == [(1, True), (2, False)]
        manager.save(1, {"loss": 3.0}, counter=Counter(7))
        manager.save(3, counter=Counter(3))
        manager.wait()
        assert (manager[1].pinned, manager[1].metrics, steps(manager)) == (True, {"loss": 3.0}, [1, 3])
        assert manager.prune(dry_run=True) == []
        manager.unpin(1)
        assert [saved.step for saved in manager.prune()] == [1]
    assert steps(manager) == [3]


def test_a_pin_by_any_choice(tmp_path):
    """A step, a Saved, the best; taking away what is not pinned is nothing; what is not there is not pinned."""
    with CheckpointManager(tmp_path / "run", keep=all_steps(), random=False) as manager:
        with pytest.raises(UnknownNameError):
            manager.pin(1)
        manager.unpin(1)
        assert not (tmp_path / "run").exists()
        for step in (1, 2, 3):
            manager.save(step, {"loss": -step})
        manager.pin(1)
        manager.pin(1)
        manager.pin(manager[2])
        manager.pin(best("loss"))
        assert _pins.pinned(manager.directory) == {1, 2, 3}
        manager.unpin(best("loss"))
        manager.unpin(manager[2])
        manager.unpin(7)
        assert _pins.pinned(manager.directory) == {1}
        (manager.directory / ".pins" / "note.txt").write_text("x")
        assert [saved.pinned for saved in manager.checkpoints] == [True, False, False]


PINS = "import sys\nfrom statedict import CheckpointManager\nCheckpointManager(sys.argv[1]).pin(int(sys.argv[2]))\n"


def test_another_process_pins_while_a_training_saves(tmp_path):
    """Without the lock, which the training holds."""
    with CheckpointManager(tmp_path, keep=last(1), random=False) as manager:
        manager.save(1)
        subprocess.run([sys.executable, "-c", PINS, tmp_path, "1"], check=True, timeout=60)
        for step in (2, 3):
            manager.save(step)
        assert steps(manager) == [1, 3]


def between(monkeypatch, number, act):
    """Do something right after the `number`-th rename."""
    genuine, count = Path.rename, [0]

    def rename(self, target):
        done = genuine(self, target)
        count[0] += 1
        if count[0] == number:
            act()
        return done

    monkeypatch.setattr(Path, "rename", rename)


def test_a_pin_that_comes_too_late_is_told(tmp_path, monkeypatch):
    """The checkpoint is being deleted: the pin is refused, and leaves nothing behind."""
    with CheckpointManager(tmp_path, keep=all_steps(), random=False) as manager:
        manager.save(1)
        manager.save(2)

        def late():
            with pytest.raises(UnknownNameError, match="'1' is not in the steps of the run"):
                _changes.pin(tmp_path, 1)

        between(monkeypatch, 2, late)
        assert [saved.step for saved in manager.prune(last(1))] == [1]
    assert _pins.pinned(tmp_path) == set()


def test_a_pin_that_comes_in_time_keeps_the_checkpoint(tmp_path, monkeypatch):
    """Its file is there before the checkpoint is renamed the second time: the checkpoint gets its name back."""
    with CheckpointManager(tmp_path, keep=all_steps(), random=False) as manager:
        manager.save(1, counter=Counter(5))
        manager.save(2)

        def in_time():
            (tmp_path / ".pins").mkdir()
            _pins.file_of(tmp_path, 1).touch()

        between(monkeypatch, 1, in_time)
        assert manager.prune(last(1)) == []
        counter = Counter()
        assert (steps(manager), manager.resume(at=1, counter=counter).step, counter.count) == ([1, 2], 1, 5)


@pytest.mark.parametrize("call", range(1, 8))
def test_a_process_that_dies_while_it_deletes_or_pins(tmp_path, monkeypatch, call):
    """After each call that changes the directory: a pin that was returned from holds, and no half-deleted step is left."""
    with CheckpointManager(tmp_path, keep=all_steps(), random=False) as manager:
        for step in (1, 2, 3):
            manager.save(step, counter=Counter(step))
        manager.pin(1)

    class KilledHere(BaseException):
        pass

    count = [0]

    def dying(genuine):
        def act(*arguments, **options):
            done = genuine(*arguments, **options)
            count[0] += 1
            if count[0] == call:
                raise KilledHere
            return done

        return act

    with monkeypatch.context() as patch:
        for holder, name in (
            (Path, "rename"),
            (Path, "touch"),
            (Path, "unlink"),
            (_changes, "sync"),
            (_changes, "_delete"),
        ):
            patch.setattr(holder, name, dying(getattr(holder, name)))
        pinned = False
        try:
            manager = CheckpointManager(tmp_path, random=False)
            manager.pin(2)
            pinned = True
            manager.prune(last(1))
            manager.unpin(2)
        except KilledHere:
            manager.close()
    again = CheckpointManager(tmp_path, keep=all_steps(), random=False)
    again.save(9)
    kept = {1, 2, 3, 9} if pinned else set(steps(again))
    assert {1, 3, 9} <= set(steps(again)) <= kept
    for step in set(steps(again)) - {9}:
        counter = Counter()
        again.resume(at=step, counter=counter)
        assert counter.count == step
    assert 1 in _pins.pinned(tmp_path)
    again.close()


def test_a_run_that_must_not_be_written_is_told(tmp_path, monkeypatch):
    """As by `save`."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1)

        def refuse(*arguments, **options):
            raise PermissionError(13, os.strerror(13))

        monkeypatch.setattr(Path, "touch", refuse)
        with pytest.raises(RunDeniedError):
            manager.pin(1)
        assert not manager[1].pinned
