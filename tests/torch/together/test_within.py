"""Calls with a time limit."""

import threading
from datetime import timedelta

import pytest

pytest.importorskip("torch")

from statedict.torch.together._within import within


@pytest.mark.parametrize("threads", [True, False])
def test_within_returns_or_raises_what_the_function_does(threads, monkeypatch):
    """`within` returns or raises what the function does, also if the system refuses more threads."""

    def refused(self):
        raise RuntimeError("can't start new thread")

    if not threads:
        monkeypatch.setattr(threading.Thread, "start", refused)
    assert within(timedelta(seconds=60), lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(timedelta(seconds=60), lambda: 1 / 0)
