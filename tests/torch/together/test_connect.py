"""Connecting the ranks that save together, if the job's store does not answer."""

import threading
from datetime import timedelta

import pytest

pytest.importorskip("torch")

from statedict.torch.together._connect import connected


class SilentStore:
    """A store that answers once it is released."""

    def __init__(self):
        self.released = threading.Event()

    def add(self, key, amount):
        self.released.wait()
        return amount


class World:
    """The process group of a job with that store."""

    def __init__(self, store):
        self._store = store

    def get_group_store(self):
        return self._store

    def rank(self):
        return 1

    def size(self):
        return 2


def test_a_store_that_does_not_answer_is_reported_after_the_time_limit():
    """A store that does not answer is reported after our time limit, whatever its own is, and no group is made."""
    store = SilentStore()
    group, lost = connected(World(store), timedelta(milliseconds=20))
    store.released.set()
    assert (group, list(lost)) == (None, [0])
    assert "the store of torch.distributed has not answered within 0.02 s" in lost[0]
