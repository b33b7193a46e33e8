"""The lock of a run's directory."""

import errno

import pytest

from statedict import CheckpointManager
from statedict.files import system


def test_a_disk_without_locks_is_said_to_have_none(tmp_path, monkeypatch):
    """Two managers could delete each other's checkpoints there, so none is made; other errors are raised as they are."""
    numbers = [errno.ENOTSUP, errno.EIO]

    def refuse(fd, *, wait):
        raise OSError(numbers.pop(0), "refused")

    monkeypatch.setattr(system.SYSTEM, "lock", refuse)
    for match in (r"has no locks.*save on another disk", "refused"):
        with CheckpointManager(tmp_path, random=False) as manager, pytest.raises(OSError, match=match):
            manager.save(1)
