"""Work is spread over threads, as many as the system gives."""

import threading

import pytest

from statedict.files import spread


@pytest.mark.parametrize("given", [0, 1, 3])
def test_work_is_done_by_the_threads_that_there_are(monkeypatch, given):
    """Where no more threads can be started, the calling one and those that there are do all of it."""
    genuine, started = threading.Thread.start, []

    def start(self):
        if len(started) == given:
            raise RuntimeError("can't start new thread")
        started.append(self)
        genuine(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    done = []
    spread(done.append, range(100), 8)
    assert sorted(done) == list(range(100))
    assert not any(thread.is_alive() for thread in started)


def test_the_first_error_is_raised():
    """No thread is left behind."""

    def work(job):
        if job == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        spread(work, range(100), 4)
