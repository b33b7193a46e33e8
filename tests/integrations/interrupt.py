"""Interrupt a training after one of its saves, and start it again."""

import pytest

from statedict import CheckpointManager


def outcomes(monkeypatch, tmp_path, training, step):
    """What a training ends with that is not interrupted, and one that is, after the save of a step."""
    expected = training(tmp_path / "whole")
    save = CheckpointManager.save

    def interrupted(manager, number, *args, **kwargs):
        save(manager, number, *args, **kwargs)
        if number == step:
            manager.close()
            raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointManager, "save", interrupted)
        with pytest.raises(InterruptedError):
            training(tmp_path / "parts")
    return training(tmp_path / "parts"), expected
