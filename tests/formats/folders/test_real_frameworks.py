"""Folders that the frameworks themselves write, compared with what is in memory. Each test needs its framework."""

import numpy as np
import pytest

import statedict
from statedict import formats

torch = pytest.importorskip("torch")
# Importing and running a framework warns of many things.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("environment")]


def trained(seed=0):
    """A model, an optimizer and a scheduler after one step."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    return model, optimizer, scheduler


def same(left, right):
    """Whether two trees with tensors are equal."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def loads(folder, model, optimizer, scheduler):
    """Assert that a folder loads into other objects, which then have the same state; without naming a root."""
    other, its_optimizer, its_scheduler = trained(1)
    statedict.load_state_dict(other, folder)
    statedict.load_state_dict(its_optimizer, folder)
    statedict.load_state_dict(its_scheduler, folder)
    for one, another in ((model, other), (optimizer, its_optimizer), (scheduler, its_scheduler)):
        assert same(one.state_dict(), another.state_dict())


@pytest.mark.parametrize("safe", [True, False])
def test_accelerate(tmp_path, safe):
    """`save_state` with safetensors or pickles; its project folder opens at the newest checkpoint."""
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    objects = accelerator.prepare(*trained())
    for number in (0, 1):
        accelerator.save_state(tmp_path / "checkpoints" / f"checkpoint_{number}", safe_serialization=safe)
    with statedict.open(tmp_path) as checkpoint:
        assert {"model", "optimizer", "scheduler", "rng"} <= checkpoint.object.keys()
        assert "checkpoint_1 is the newest of 2 checkpoints" in checkpoint.notes[-1]
        assert not [finding for finding in checkpoint.verify() if finding.level == "error"]
    loads(tmp_path, *objects)


def test_transformers(tmp_path):
    """A checkpoint of the Trainer, and its output folder."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = transformers.BertForSequenceClassification(config)
    options = transformers.TrainingArguments(
        tmp_path, max_steps=2, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_total_limit=2
    )
    data = [{"input_ids": [1, 2, 3], "labels": 0}, {"input_ids": [4, 5, 6], "labels": 1}]
    trainer = transformers.Trainer(model, options, train_dataset=data)
    trainer.train()
    with statedict.open(tmp_path) as checkpoint:
        assert {"model", "optimizer", "scheduler", "rng", "trainer_state"} <= checkpoint.object.keys()
        assert checkpoint.object["trainer_state"]["global_step"] == 2
    other = transformers.BertForSequenceClassification(config)
    statedict.load_state_dict(other, tmp_path / "checkpoint-2")
    assert same(trainer.model.state_dict(), other.state_dict())
    moments = torch.load(tmp_path / "checkpoint-2" / "optimizer.pt")
    assert same(moments, statedict.load(tmp_path / "checkpoint-2")["optimizer"])
    assert [step.number for step in formats.runs.steps(tmp_path)] == [1, 2]


def test_diffusers(tmp_path):
    """A pipeline has a root for each model."""
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1,
    )
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    with statedict.open(tmp_path) as checkpoint:
        assert list(checkpoint.roots) == ["unet"]
    other = type(unet).from_config(unet.config)
    statedict.load_state_dict(other, tmp_path, root="unet")
    assert same(unet.state_dict(), other.state_dict())


def test_lightning(tmp_path):
    """The run folder of a Trainer opens at `last.ckpt`; the optimizer loads from it."""
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 1)

        def training_step(self, batch, index):
            return self.net(batch).sum()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

    saving = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / "checkpoints", save_last=True, every_n_epochs=1)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, callbacks=[saving], enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(2, 4)))
    other = Module()
    statedict.load_state_dict(other, tmp_path)
    assert same(module.state_dict(), other.state_dict())
    optimizer = other.configure_optimizers()
    statedict.load_state_dict(optimizer, tmp_path)
    assert same(trainer.optimizers[0].state_dict(), optimizer.state_dict())


def test_skorch(tmp_path):
    """The folder of the callback `Checkpoint`."""
    skorch = pytest.importorskip("skorch")
    callback = skorch.callbacks.Checkpoint(dirname=str(tmp_path), monitor=None)
    net = skorch.NeuralNet(torch.nn.Linear, torch.nn.MSELoss, module__in_features=4, module__out_features=1,
                           max_epochs=1, callbacks=[callback], train_split=None, verbose=0)  # fmt: skip
    net.fit(np.ones((4, 4), np.float32), np.ones((4, 1), np.float32))
    other = torch.nn.Linear(4, 1)
    statedict.load_state_dict(other, tmp_path)
    assert same(net.module_.state_dict(), other.state_dict())
    assert same(net.optimizer_.state_dict()["state"], statedict.load(tmp_path)["optimizer"]["state"])


def test_stable_baselines3(tmp_path):
    """The zip of a model has a root for each file in it."""
    library = pytest.importorskip("stable_baselines3")
    model = library.PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=4, device="cpu")
    model.learn(8)
    model.save(tmp_path / "model.zip")
    other = library.PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=7)
    statedict.load_state_dict(other.policy, tmp_path / "model.zip")
    assert same(model.policy.state_dict(), other.policy.state_dict())
