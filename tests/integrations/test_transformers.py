"""transformers: the Trainer's checkpoints are those of a manager, and resume bit for bit."""

import pytest
from tests.integrations.trainings import transformers
from transformers import Trainer

from statedict import CheckpointManager


def test_trains_as_the_trainer_does(tmp_path):
    """Without an interruption it trains as transformers' own Trainer; the folder has checkpoints of the manager only."""
    expected = transformers(tmp_path / "own", trainer=Trainer)
    assert transformers(tmp_path / "ours") == expected
    assert [saved.step for saved in CheckpointManager(tmp_path / "ours").checkpoints] == [16, 18]
    assert list((tmp_path / "ours").glob("checkpoint-*")) == []


def test_best_model(tmp_path):
    """The evaluation at a step gives the metrics of its checkpoint, and the best one is loaded at the end."""
    usual = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss", "save_total_limit": None}
    transformers(tmp_path, load_best_model_at_end=True, **usual)
    manager = CheckpointManager(tmp_path)
    assert len(manager.checkpoints) == 9
    assert manager.best("eval_loss").metrics["eval_loss"] == min(
        each.metrics["eval_loss"] for each in manager.checkpoints
    )


def test_ignore_data_skip(tmp_path):
    """Training that ignores the position in the data cannot be resumed bit for bit, and is refused."""
    with pytest.raises(ValueError, match="ignore_data_skip"):
        transformers(tmp_path, ignore_data_skip=True)
