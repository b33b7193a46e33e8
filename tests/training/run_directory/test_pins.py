"""A pinned checkpoint is never deleted, whoever pins it and when."""

import os
import subprocess
import sys
import threading
from collections import Counter as Counts
from itertools import combinations
from pathlib import Path

import pytest
from tests.training.objects import Counter

from statedict import CheckpointManager, best, last
from statedict.errors import RunDeniedError, UnknownNameError
from statedict.files import system
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
    """Another process can pin while a training holds the lock."""
    with CheckpointManager(tmp_path, keep=last(1), random=False) as manager:
        manager.save(1)
        subprocess.run([sys.executable, "-c", PINS, tmp_path, "1"], check=True, timeout=60)
        for step in (2, 3):
            manager.save(step)
        assert steps(manager) == [1, 3]


def between(monkeypatch, number, act):
    """Do something right after the `number`-th rename."""
    genuine, count = system.rename, [0]

    def rename(source, target):
        genuine(source, target)
        count[0] += 1
        if count[0] == number:
            act()

    monkeypatch.setattr(system, "rename", rename)


def test_a_pin_that_comes_too_late_is_told(tmp_path, monkeypatch):
    """The checkpoint is being deleted: the pin is refused, and leaves nothing behind."""
    with CheckpointManager(tmp_path, keep=all_steps(), random=False) as manager:
        manager.save(1)
        manager.save(2)

        def late():
            with pytest.raises(UnknownNameError, match=f"'1' is not in the steps of {tmp_path}"):
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


class InTurns:
    """Two threads that take turns at calls which read or change the directory: 0 and 1 in `order` say whose call is next."""

    def __init__(self, order):
        self.order, self.ended = list(order), set()
        self.turn = threading.Condition()
        self.numbers = {}

    def before(self, genuine):
        def act(*arguments, **options):
            number = self.numbers.get(threading.get_ident())
            if number is not None:
                self.wait_for(number)
            return genuine(*arguments, **options)

        return act

    def wait_for(self, number):
        with self.turn:
            assert self.turn.wait_for(lambda: self.next() == number, timeout=60)
            if self.order:
                self.order.pop(0)
            self.turn.notify_all()

    def next(self):
        while self.order and self.order[0] in self.ended:
            self.order.pop(0)
        return self.order[0] if self.order else min({0, 1} - self.ended)

    def run(self, *acts):
        """What each of the two came to: its result, or its error."""
        results = [None, None]

        def work(number):
            self.numbers[threading.get_ident()] = number
            try:
                results[number] = acts[number]()
            except UnknownNameError as error:
                results[number] = error
            finally:
                with self.turn:
                    self.ended.add(number)
                    self.turn.notify_all()

        threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_in_every_order_a_pin_that_is_returned_from_holds(tmp_path, monkeypatch):
    """A pin and a deletion, one call of either after the other in every order: the step stays, or the pin is refused."""
    outcomes = Counts()
    for chosen in combinations(range(8), 4):
        turns = InTurns(1 if number in chosen else 0 for number in range(8))
        directory = tmp_path / "-".join(map(str, chosen))
        step = directory / "step-0000000001"
        step.mkdir(parents=True)
        with monkeypatch.context() as patch:
            for holder, name in (
                (system, "rename"),
                (Path, "touch"),
                (Path, "unlink"),
                (Path, "is_dir"),
                (os, "listdir"),
            ):
                patch.setattr(holder, name, turns.before(getattr(holder, name)))
            pin, removed = turns.run(
                lambda at=directory: _changes.pin(at, 1), lambda at=directory, path=step: _changes.remove(at, path)
            )
        assert removed == (not step.is_dir())
        assert not (removed and pin is None)
        assert _pins.pinned(directory) == (set() if pin else {1})
        outcomes["deleted" if removed else "pinned" if pin is None else "neither"] += 1
    assert outcomes.keys() >= {"deleted", "pinned"}


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
            (system, "rename"),
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
    """Pinning in a run that must not be written raises the error that `save` raises."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1)

        def refuse(*arguments, **options):
            raise PermissionError(13, os.strerror(13))

        monkeypatch.setattr(Path, "touch", refuse)
        with pytest.raises(RunDeniedError):
            manager.pin(1)
        assert not manager[1].pinned
