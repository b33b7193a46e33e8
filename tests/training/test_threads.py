"""A manager is used from several threads, is forked, ended by signals and dropped: no save is lost, and nothing hangs."""

import gc
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from statedict import CheckpointManager
from statedict.errors import LockedError
from statedict.training import all_steps
from statedict.training.resuming._find import verify
from statedict.training.run_directory import DirectoryRun
from statedict.training.saving._background import Background
from statedict.training.saving._ownership import OWNERSHIPS


class Value:
    """An object whose state is one array; `at` is called when the state is asked for."""

    def __init__(self, value=0.0, at=lambda: None):
        self.array, self.at = np.full(5000, value), at

    def state_dict(self):
        self.at()
        return {"array": self.array}

    def load_state_dict(self, state):
        self.array = np.asarray(state["array"])


def script(text, *arguments, timeout=60):
    """Run a script in a process of its own, in which warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", text, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("options", [{}, {"asynchronous": True}], ids=["synchronous", "asynchronous"])
def test_saves_of_several_threads_come_one_after_the_other(tmp_path, options):
    """Each save that returns is there with all of its files, while others save, list, prune and resume."""
    manager = CheckpointManager(tmp_path, keep=all_steps(), random=False, durable=False, **options)
    wrong = []

    def work(number):
        try:
            for turn in range(8):
                manager.save(4 * turn + number, value=Value(4 * turn + number), name=number)
                value = Value()
                resumed = manager.resume(value=value)
                assert (value.array == resumed.step).all()
                manager.prune()
                manager.wait()
                assert 4 * turn + number in {saved.step for saved in manager.checkpoints}
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manager.close()
    assert wrong == []
    assert [saved.step for saved in manager.checkpoints] == list(range(32))
    for saved in manager.checkpoints:
        verify(DirectoryRun(saved.path.parent), saved.path)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == {".lock"}


def test_a_job_is_done_where_no_thread_can_be_started(monkeypatch):
    """`submit` does it then and there, and `wait` does not wait for a thread that never was."""
    done, background = [], Background()

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    background.submit(lambda: done.append(1), dropped=lambda: None)
    assert done == [1]
    background.wait()


def test_a_job_is_done_where_the_start_of_its_thread_is_interrupted(monkeypatch):
    """Ctrl-C between two lines loses nothing: whoever waits does the job, once."""
    done, background = [], Background()

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        background.submit(lambda: done.append(1), dropped=lambda: None)
    background.wait()
    assert (done, background.running) == ([1], False)


def test_a_job_is_done_once_where_the_interrupted_thread_runs_after_all(monkeypatch):
    """The thread may have been started before the interrupt: then it does the job, or finds nothing to do."""
    done, background, genuine, threads = [], Background(), threading.Thread.start, []

    def start(self):
        genuine(self)
        threads.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    for number in range(50):
        with pytest.raises(KeyboardInterrupt):
            background.submit(lambda number=number: done.append(number), dropped=lambda: None)
        background.wait()
    for thread in threads:
        thread.join()
    assert done == list(range(50))


NO_THREADS = """
import resource, sys, threading
from statedict import CheckpointManager
manager = CheckpointManager(sys.argv[1], random=False, asynchronous=True)
manager.save(1, epoch=1)
manager.wait()
threading.stack_size(1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
manager.save(2, epoch=2)
"""


def test_a_process_that_may_have_no_more_threads_saves_and_ends(tmp_path):
    """An asynchronous save is a synchronous one then."""
    done = script(NO_THREADS, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [saved.step for saved in CheckpointManager(tmp_path).checkpoints] == [1, 2]


AT_START = """
import os, signal, sys, threading
from statedict import CheckpointManager
manager = CheckpointManager(sys.argv[1], random=False, asynchronous=True, on_sigterm=True)
manager.save(1, epoch=1)
manager.wait()
genuine = threading.Thread.__init__
def init(self, *arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    genuine(self, *arguments, **options)
threading.Thread.__init__ = init
manager.save(2, epoch=2)
"""


def test_sigterm_before_the_thread_of_a_save_is_started(tmp_path):
    """The save that was asked for is finished, and the process ends by the signal."""
    assert script(AT_START, tmp_path).returncode == -signal.SIGTERM
    assert [saved.step for saved in CheckpointManager(tmp_path).checkpoints] == [1, 2]


IN_WORKER = """
import os, signal, sys, threading, time
from statedict import CheckpointManager
manager = CheckpointManager(sys.argv[1], random=False, on_sigterm=True)
class Ends:
    def state_dict(self):
        os.kill(os.getpid(), signal.SIGTERM)
        while not manager._on_sigterm._came:
            time.sleep(0.001)
        return {}
    def load_state_dict(self, state): pass
def work():
    manager.save(1, ends=Ends())
    while True:
        manager.save(2, epoch=2)
worker = threading.Thread(target=work, daemon=sys.argv[2] == "daemon")
worker.start()
# A signal that arrives just before a wait begins does not interrupt it, so no wait may be endless.
while worker.is_alive():
    worker.join(0.1)
"""


@pytest.mark.parametrize("kind", ["daemon", "not"])
def test_sigterm_during_a_worker_threads_save(tmp_path, kind):
    """The signal is not lost, and comes when that save is done; the worker begins no other."""
    done = script(IN_WORKER, tmp_path, kind)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    assert [saved.step for saved in CheckpointManager(tmp_path).checkpoints] == [1]


HANDLED = """
import os, signal, sys, threading
from statedict import CheckpointManager
came = []
signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
manager = CheckpointManager(sys.argv[1], random=False, on_sigterm=True)
manager.save(1, epoch=1)
ours = signal.getsignal(signal.SIGTERM)
if sys.argv[2] == "wrapped":
    signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
os.kill(os.getpid(), signal.SIGTERM)
worker = threading.Thread(target=lambda: manager.save(2, epoch=2))
worker.start()
worker.join()
assert came == [signal.SIGTERM], came
"""


@pytest.mark.parametrize("kind", ["plain", "wrapped"])
def test_sigterm_that_somebody_else_handles(tmp_path, kind):
    """The handler that was there is called once, even where a later one calls ours; the process lives on, and saves."""
    done = script(HANDLED, tmp_path, kind)
    assert (done.returncode, done.stderr) == (0, "")
    assert [saved.step for saved in CheckpointManager(tmp_path).checkpoints] == [1, 2]


FAILS_AT_THE_END = """
import os, signal, sys
from statedict import CheckpointManager
manager = CheckpointManager(sys.argv[1], asynchronous=True, on_sigterm=True)
manager.save(1, oops=lambda: None)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_save_that_fails_when_sigterm_ends_the_process_is_told(tmp_path):
    """Nobody is left to raise to: the error is on standard error."""
    done = script(FAILS_AT_THE_END, tmp_path)
    assert done.returncode == -signal.SIGTERM
    assert "SaveError" in done.stderr
    assert "step 1 was not saved" in done.stderr


NOT_CLOSED = """
import atexit, gc, sys
from statedict import CheckpointManager
atexit.register(lambda: print("flushed", flush=True))
def train(**values):
    manager = CheckpointManager(sys.argv[1], random=False, asynchronous=True)
    manager.save(1, **values)
    return manager
values = {"oops": lambda: None} if sys.argv[2] == "fails" else {}
manager = train(**values)
if sys.argv[3] == "collected":
    while manager._background.running:
        pass
    manager = None
    gc.collect()
atexit.register(print, "ended")
"""


@pytest.mark.parametrize("when", ["collected", "at exit"])
def test_a_manager_that_was_not_closed_and_whose_save_fails_ends_the_process_with_an_error(tmp_path, when):
    """The error names the step; other functions that run at exit are not disturbed."""
    done = script(NOT_CLOSED, tmp_path, "fails", when)
    assert (done.returncode, done.stdout) == (120, "ended\nflushed\n")
    assert "SaveError" in done.stderr
    assert "step 1 was not saved" in done.stderr
    assert "a checkpoint was not saved (see the error above), so the exit status is 120" in done.stderr


@pytest.mark.parametrize("output", ["sys.stdout.close()", "sys.stdout = None"])
def test_a_failed_save_ends_a_process_without_output_with_an_error(tmp_path, output):
    """A failed save gives exit status 120, too, if standard output is closed or absent."""
    done = script(f"{NOT_CLOSED.replace('atexit.register', 'str')}\n{output}", tmp_path, "fails", "at exit")
    assert done.returncode == 120
    assert "so the exit status is 120" in done.stderr


def test_a_manager_that_was_not_closed_saves_before_the_process_ends(tmp_path):
    """A save in the background is finished before the process ends, with exit status 0."""
    done = script(NOT_CLOSED, tmp_path, "saves", "at exit")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\nflushed\n", "")
    assert list(CheckpointManager(tmp_path)) == [1]


def test_the_error_of_a_save_in_the_background_names_its_step(tmp_path):
    """The next call, which may save another step, raises the error, which names the step that failed."""
    with CheckpointManager(tmp_path, asynchronous=True) as manager:
        manager.save(1, oops=lambda: None)
        with pytest.raises(ValueError, match="step 1 was not saved"):
            manager.save(2, epoch=1)


FORKS = """
import os, sys, threading, time
from statedict import CheckpointManager
inside, go_on = threading.Event(), threading.Event()
class Slow:
    def state_dict(self):
        inside.set()
        go_on.wait()
        return {}
    def load_state_dict(self, state): pass
with CheckpointManager(sys.argv[1], random=False, asynchronous=sys.argv[2] == "True", on_sigterm=True) as manager:
    worker = threading.Thread(target=lambda: manager.save(1, slow=Slow()))
    worker.start()
    inside.wait()
    child = os.fork()
    if not child:
        # The turn is held by a thread that is not here.
        manager.wait()
        assert manager.latest is None
        try:
            manager.save(2, epoch=2)
        except Exception as error:
            sys.exit(3 if type(error).__name__ == "LockedError" else 4)
        sys.exit(5)
    _, status = os.waitpid(child, 0)
    go_on.set()
    worker.join()
    assert os.waitstatus_to_exitcode(status) == 3, status
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking a process with threads warns since Python 3.12")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_child_forked_during_a_save_does_not_hang(tmp_path, asynchronous):
    """Its copy of the manager has neither the parent's turn nor its thread nor its lock; it ends by itself."""
    done = script(FORKS, tmp_path, asynchronous)
    assert (done.returncode, done.stderr) == (0, "")
    assert [saved.step for saved in CheckpointManager(tmp_path).checkpoints] == [1]


@pytest.mark.parametrize("options", [{}, {"asynchronous": True}, {"on_sigterm": True}], ids=str)
def test_a_dropped_manager_gives_its_lock_back(tmp_path, options):
    """Nothing keeps a manager alive that nobody has: neither the end of the interpreter nor a signal's handler."""
    before = signal.getsignal(signal.SIGTERM)
    manager = CheckpointManager(tmp_path, random=False, **options)
    manager.save(1, value=Value())
    manager.wait()
    del manager
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(2, value=Value())
    signal.signal(signal.SIGTERM, before)


def test_a_dropped_manager_finishes_the_save_in_flight(tmp_path):
    """The thread that saves has the manager until it is done."""
    CheckpointManager(tmp_path, random=False, asynchronous=True).save(1, value=Value())
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(2, value=Value())
        assert [saved.step for saved in manager.checkpoints] == [1, 2]


def test_a_newer_manager_of_the_process_takes_over(tmp_path):
    """A notebook's cell that is run again: the older manager, still referred to, is refused from then on, and says why."""
    older = CheckpointManager(tmp_path, random=False, asynchronous=True)
    older.save(1, value=Value())
    newer = CheckpointManager(tmp_path, random=False)
    newer.save(2, value=Value())
    assert [saved.step for saved in newer.checkpoints] == [1, 2]
    with pytest.raises(LockedError, match=r"another manager in this process .* was created later"):
        older.save(3, value=Value())
    newer.close()
    older.save(3, value=Value())
    older.close()


def test_resume_takes_nothing_over(tmp_path):
    """Another manager of the process may read while one trains: a damaged checkpoint stays where it is then."""
    training = CheckpointManager(tmp_path, random=False)
    for step in (1, 2):
        training.save(step, value=Value())
    (tmp_path / "step-0000000002" / "value.pt").write_bytes(b"")
    resumed = CheckpointManager(tmp_path, random=False).resume(value=Value())
    assert (resumed.step, resumed.passed_over[0].path.name) == (1, "step-0000000002")
    training.save(3, value=Value())
    training.close()


def test_a_manager_in_its_with_block_is_not_taken_over(tmp_path):
    """It is in use, so that two trainings in one process are told from a cell that is run again."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, value=Value())
        with pytest.raises(LockedError, match="in its `with` block"):
            CheckpointManager(tmp_path, random=False).save(2, value=Value())
    with CheckpointManager(tmp_path, random=False) as other:
        other.save(2, value=Value())


def test_locks_go_with_their_managers(tmp_path):
    """Thousands of managers in one process leave nothing behind."""
    gc.collect()
    before = len(OWNERSHIPS)
    for _ in range(20):
        CheckpointManager(tmp_path, random=False).save(1, value=Value())
    assert len(OWNERSHIPS) == before
