"""torchtitan: the calls that its trainer makes of a checkpoint manager. Its trainer needs CUDA; this one is ours."""

import pytest
from tests.integrations.trainings import Titan

from statedict import CheckpointManager
from statedict.integrations.torchtitan import TitanCheckpoints


def test_when_it_saves(tmp_path):
    """It saves at each interval, after the last step, and after the first one if asked; `load_only` saves nothing."""
    usual = {"enable": True, "interval": 3, "keep_latest_k": 0, "folder": "run", "enable_first_step_checkpoint": True}
    config = TitanCheckpoints.Config(**usual)
    config.folder = str(tmp_path / "run")
    Titan(config).train(7)
    assert list(CheckpointManager(tmp_path / "run")) == [1, 3, 6, 7]
    config.load_only = True
    Titan(config).train(9)
    assert list(CheckpointManager(tmp_path / "run")) == [1, 3, 6, 7]


def test_load_step(tmp_path):
    """A step can be chosen; a disabled manager does nothing."""
    config = TitanCheckpoints.Config(enable=True, interval=2, folder=str(tmp_path))
    Titan(config).train(6)
    trainer = Titan(config)
    assert trainer.checkpointer.load(step=4)
    assert trainer.step == 4
    trainer = Titan(TitanCheckpoints.Config(folder=str(tmp_path)))
    trainer.checkpointer.maybe_wait_for_saving()
    assert not trainer.checkpointer.load()
    assert not trainer.checkpointer.save(2)


def test_exclude_from_loading(tmp_path):
    """What is excluded stays as it was, such as a data loader that fits another number of ranks; only known names can be."""
    usual = {"enable": True, "interval": 2, "folder": str(tmp_path)}
    Titan(TitanCheckpoints.Config(**usual)).train(4)
    trainer = Titan(TitanCheckpoints.Config(**usual, exclude_from_loading=["dataloader"]))
    assert trainer.checkpointer.load()
    assert (trainer.step, trainer.loader.position) == (4, 0)
    with pytest.raises(ValueError, match=r"names \['loader', 'model'\], and can name \['optimizer', 'lr_sch"):
        Titan(TitanCheckpoints.Config(**usual, exclude_from_loading=["loader", "model"]))
