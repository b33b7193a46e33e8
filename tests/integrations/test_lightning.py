"""Lightning: the callback resumes bit for bit, and the plugin keeps files complete and verified."""

import warnings

import pytest
import torch
from tests.integrations.trainings import lightning

import statedict
from statedict import CheckpointManager, last
from statedict.errors import ChecksumError
from statedict.integrations.lightning import StateDictCheckpoint, StateDictCheckpointIO


@pytest.mark.parametrize("short", [{"max_steps": 12}, {"max_steps": 15}, {"max_epochs": 2}])
def test_trains_longer(tmp_path, short):
    """A finished training that is started again with a higher limit ends as if it had had that from the beginning."""
    lightning(tmp_path / "parts", by_epoch=True, **short)
    assert lightning(tmp_path / "parts", by_epoch=True) == lightning(tmp_path / "whole", by_epoch=True)


def test_checkpoints(tmp_path):
    """The run has the newest checkpoints, with the logged metrics, and the model's weights can be loaded from them."""
    lightning(tmp_path)
    manager = CheckpointManager(tmp_path)
    assert [saved.step for saved in manager.checkpoints] == [16, 18]
    assert manager.latest.metrics.keys() == {"val_loss"}
    assert "network.0.weight" in statedict.open(tmp_path).state_dict("model")


def test_by_epoch(tmp_path):
    """Without `when` every epoch is saved; a trainer without it trains the same."""
    import lightning.pytorch as pl
    from lightning.pytorch.demos.boring_classes import BoringModel

    def fit(*callbacks):
        torch.manual_seed(0)
        module = BoringModel()
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                max_epochs=2, accelerator="cpu", callbacks=[*callbacks], enable_checkpointing=bool(callbacks), **quiet
            )
            trainer.fit(module)
        return module.layer.weight.tolist()

    with_callback = fit(StateDictCheckpoint(tmp_path, keep=last(1)))
    assert with_callback == fit()
    assert [saved.step for saved in CheckpointManager(tmp_path).checkpoints] == [128]


def test_plugin_with_model_checkpoint(tmp_path):
    """ModelCheckpoint saves through the plugin, and `ckpt_path` resumes from what it saved."""
    whole = lightning(tmp_path, plugin=True)
    assert {path.suffix for path in tmp_path.iterdir()} == {".ckpt"}
    assert lightning(tmp_path, plugin=True) == whole
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["global_step"] == 18


def test_plugin_verifies(tmp_path):
    """A damaged checkpoint is an error; a removed one is gone, and may be removed again; options are refused."""
    plugin, path = StateDictCheckpointIO(), tmp_path / "new" / "a.ckpt"
    plugin.save_checkpoint({"weights": torch.ones(1000)}, path)
    assert torch.equal(plugin.load_checkpoint(path)["weights"], torch.ones(1000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError):
        plugin.load_checkpoint(path)
    plugin.remove_checkpoint(path)
    plugin.remove_checkpoint(path)
    assert not path.exists()
    with pytest.raises(TypeError, match="storage_options"):
        plugin.save_checkpoint({}, path, {"token": 1})


def test_an_older_lightning(monkeypatch, tmp_path):
    """Lightning before 2.5 cannot resume exactly: the error says which version is needed."""
    import lightning.pytorch as pl

    monkeypatch.setattr(pl, "__version__", "2.4.0")
    with pytest.raises(ImportError, match=r"needs Lightning 2\.5 or later, and this is 2\.4\.0"):
        StateDictCheckpoint(tmp_path)
