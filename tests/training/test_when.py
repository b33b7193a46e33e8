"""When to save: policies against a plain model of time and steps, and SIGTERM that waits for a save."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.objects import Counter

from statedict import CheckpointManager, any_of, at_most, best, every, last, on_preemption, within
from statedict.training import _clock
from statedict.training._when import Moment, is_due, needs_agreement


def asked(when, *moments):
    """The answers at (step, seconds since the last save) or (step, seconds, preempted)."""
    return [is_due(when, Moment(*moment, *(False,) * (3 - len(moment)))) for moment in moments]


def test_each_policy_by_example():
    """Steps are multiples; a time is at least so long; SIGTERM asks by itself; a function is asked for the step."""
    assert asked(every(10), (9, 99), (10, 0), (0, 0)) == [False, True, True]
    assert asked(every(minutes=1.5), (1, 89.9), (2, 90), (3, 1e9)) == [False, True, True]
    assert asked(every(days=1, hours=1), (1, 89_999), (1, 90_000)) == [False, True]
    assert asked(on_preemption, (1, 1e9), (1, 0, True)) == [False, True]
    assert asked(lambda step: step in (3, 5), (3, 0), (4, 0)) == [True, False]
    both = any_of(every(10), any_of(every(minutes=1), on_preemption))
    assert asked(both, (9, 59), (10, 0), (9, 60), (9, 0, True)) == [False, True, True, True]


@pytest.mark.parametrize(
    "when",
    [last(3), best("loss"), within(days=1), at_most("1GB"), any_of(every(3), last(2)), any_of(3, every(3))],
    ids=str,
)
def test_what_says_what_to_keep_does_not_say_when_to_save(tmp_path, when):
    """A policy for `keep` as `when` is a mistake, wherever it stands."""
    with pytest.raises(ValueError, match="says what to keep, not when to save: pass it as keep="):
        CheckpointManager(tmp_path, when=when)


@pytest.mark.parametrize("when", [100, "1h", True, [every(3)], Counter])
def test_what_is_no_policy_is_refused(tmp_path, when):
    """A value that is not a policy is refused when the manager is made, not at the first step."""
    with pytest.raises(TypeError, match=r"when= must be a policy such as every\(minutes=30\), not"):
        CheckpointManager(tmp_path, when=when)


def test_without_a_policy_there_is_no_answer(tmp_path):
    """The error says how to give one; an invalid step is refused as by `save`."""
    with pytest.raises(ValueError, match=r"should_save\(\) needs a policy: CheckpointManager\(…, when="):
        CheckpointManager(tmp_path).should_save(1)
    with pytest.raises(ValueError, match="step must be an integer"):
        CheckpointManager(tmp_path, when=every(3)).should_save("1")


def test_only_steps_need_no_agreement():
    """Clocks, signals and functions differ between ranks."""
    assert not needs_agreement(any_of(every(3), every(7)))
    for part in (every(minutes=1), on_preemption, lambda step: True):
        assert needs_agreement(any_of(every(3), part))


@settings(max_examples=60)
@given(
    st.integers(1, 9),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=12),
    st.booleans(),
)
def test_a_manager_asks_its_policy(tmp_path_factory, steps, minutes, turns, asynchronous):
    """Time counts from the last save, whoever asked for it, or from the manager's beginning."""
    time = [1000.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_clock, "monotonic", lambda: time[0])
        when = any_of(every(steps), every(minutes=minutes))
        options = {"random": False, "durable": False, "asynchronous": asynchronous}
        with CheckpointManager(tmp_path_factory.mktemp("run"), when=when, **options) as manager:
            last_save = time[0]
            for step, (seconds, saves) in enumerate(turns, start=1):
                time[0] += seconds
                due = step % steps == 0 or time[0] - last_save >= 60 * minutes
                assert manager.should_save(step) == due
                if due or saves:
                    manager.save(step, epoch=step)
                    last_save = time[0]


def test_a_save_that_fails_is_asked_for_again(tmp_path, monkeypatch):
    """The time still counts from the last one that did not."""
    monkeypatch.setattr(_clock, "monotonic", lambda: time[0])
    time = [0.0]
    with CheckpointManager(tmp_path, when=every(minutes=1), random=False) as manager:
        time[0] = 61.0
        assert manager.should_save(1)
        with pytest.raises(ValueError, match="cannot be pickled"):
            manager.save(1, oops=lambda: None)
        assert manager.should_save(2)
        manager.save(2)
        assert not manager.should_save(3)


PREEMPTED = """
import os, signal, sys, threading, time
from statedict import CheckpointManager, any_of, every, on_preemption
sys.path.insert(0, sys.argv[3])
from tests.training.objects import Counter
kind = sys.argv[2]
class Counts(Counter):
    def state_dict(self):
        if kind == "during a save" and self.count == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        if kind == "failing" and self.count == 5:
            self.count = 6
            raise OSError("no room")
        return super().state_dict()
counter = Counts()
when = any_of(every(4), on_preemption)
manager = CheckpointManager(sys.argv[1], when=when, random=False, asynchronous=kind == "asynchronous")
def train():
    for step in range(1, 100):
        counter.count = step
        if manager.should_save(step):
            try:
                manager.save(step, counter=counter)
            except OSError:
                assert kind == "failing"
        if step == 4 and kind != "during a save":
            os.kill(os.getpid(), signal.SIGTERM)
            while kind == "worker" and not manager._on_sigterm.preempted:
                time.sleep(0.001)
            if kind == "ends":
                return
if kind == "worker":
    worker = threading.Thread(target=train)
    worker.start()
    # A signal that arrives just before a wait begins does not interrupt it, so no wait may be endless.
    while worker.is_alive():
        worker.join(0.1)
elif kind == "child":
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    train()
elif kind == "dropped":
    del manager
    os.kill(os.getpid(), signal.SIGTERM)
elif kind == "handled":
    came = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    manager = CheckpointManager(sys.argv[1], when=when, random=False)
    train()
    assert came == [signal.SIGTERM]
    sys.exit(3)
else:
    with manager:
        train()
    sys.exit(9)
"""


@pytest.mark.parametrize(
    ("kind", "steps", "code"),
    [
        ("synchronous", [4, 5], -signal.SIGTERM),
        ("asynchronous", [4, 5], -signal.SIGTERM),
        ("worker", [4, 5], -signal.SIGTERM),
        ("child", [4, 5], -signal.SIGTERM),
        ("during a save", [4], -signal.SIGTERM),
        ("failing", [4, 6], -signal.SIGTERM),
        ("ends", [4], -signal.SIGTERM),
        ("dropped", [], -signal.SIGTERM),
        ("handled", [92, 96], 3),
    ],
)
def test_sigterm_makes_a_save(tmp_path, kind, steps, code):
    """The next step is saved, and then the process ends by the signal, as it would have; a save that fails is made again.

    A running save is enough. The signal is not lost where training ends without a save, or the manager is dropped, or in a
    forked child. A handler that was there is called after the save, and may let the process go on.
    """
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PREEMPTED, str(tmp_path / "run"), kind, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    found = [saved.step for saved in CheckpointManager(tmp_path / "run").checkpoints]
    assert found[-2:] == steps
    if steps and kind not in ("handled", "ends"):
        counter = Counter()
        CheckpointManager(tmp_path / "run").resume(counter=counter)
        assert counter.count == steps[-1]
