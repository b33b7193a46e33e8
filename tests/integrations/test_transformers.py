"""transformers: the Trainer's checkpoints are those of a manager, and resume bit for bit."""

import pytest
from tests.integrations.trainings import transformers
from transformers import Trainer

from statedict import CheckpointManager, last
from statedict.integrations.transformers import StateDictTrainer


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


class WorseAndWorse:
    """For a Trainer: each evaluation has a higher loss than the one before."""

    evaluations = 0

    def evaluation_loop(self, *args, **options):
        found = super().evaluation_loop(*args, **options)
        self.evaluations += 1
        found.metrics["eval_loss"] = self.evaluations
        return found


@pytest.mark.parametrize(("limit", "kept"), [(1, [2, 18]), (3, [2, 16, 18])])
def test_the_best_model_is_kept(limit, kept, tmp_path):
    """`save_total_limit` never deletes the checkpoint that `load_best_model_at_end` loads; the weights are the Trainer's."""
    usual = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss", "save_total_limit": limit}
    usual |= {"load_best_model_at_end": True}
    kinds = [type("Worse", (WorseAndWorse, kind), {}) for kind in (Trainer, StateDictTrainer)]
    expected, found = (transformers(tmp_path / str(n), kind, **usual) for n, kind in enumerate(kinds))
    assert found == expected
    assert list(CheckpointManager(tmp_path / "1")) == kept


def test_a_manager_that_deletes_the_best_model(tmp_path):
    """The training ends with a warning, and with its last weights."""
    usual = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss", "load_best_model_at_end": True}
    manager = CheckpointManager(tmp_path, keep=last(1))

    class Ours(WorseAndWorse, StateDictTrainer):
        def __init__(self, **options):
            super().__init__(manager=manager, **options)

        def _load_best_model(self):
            with pytest.warns(UserWarning, match="the model keeps its last weights"):
                super()._load_best_model()

    transformers(tmp_path, Ours, **usual)
    assert list(manager) == [18]


def test_ignore_data_skip(tmp_path):
    """Training that ignores the position in the data cannot be resumed bit for bit, and is refused."""
    with pytest.raises(ValueError, match="ignore_data_skip"):
        transformers(tmp_path, ignore_data_skip=True)
