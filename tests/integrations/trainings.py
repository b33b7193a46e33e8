"""Small trainings in each framework, that resume what is in their directory; each returns all that must be the same.

The data are shuffled and augmented with random numbers, the models have dropout, and saves fall into the middle of epochs.
"""

import contextlib
import logging
import random
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from statedict import CheckpointManager, every, last
from statedict.integrations import ResumableLoader


class Points(Dataset):
    """Points that are never the same twice."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return torch.full((4,), index / 24) + 0.01 * torch.randn(4) + random.random()


class Sum:
    """An object with a state that is not known to any framework: what it was given."""

    def __init__(self):
        self.total = 0.0

    def add(self, value):
        self.total += float(value)

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


def network():
    return nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.3), nn.Linear(64, 4))


def seed():
    random.seed(3)
    torch.manual_seed(3)


def outcome(model, optimizer, *others):
    """Parameters, moments, the learning rate, and what the generators draw next."""
    moments = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    rates = [group["lr"] for group in optimizer.param_groups]
    tensors = [torch.as_tensor(value).flatten().tolist() for value in (*model.state_dict().values(), *moments)]
    return [*tensors, rates, torch.rand(2).tolist(), random.random(), *others]


def loop(directory):
    """A plain loop with a ResumableLoader."""
    seed()
    model, seen = network(), Sum()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = ResumableLoader(DataLoader(Points(), 4, shuffle=True))
    objects = {"model": model, "optimizer": optimizer, "loader": loader, "seen": seen}
    with CheckpointManager(directory, keep=last(2), when=every(2)) as manager:
        resumed = manager.resume(**objects)
        step, epoch = (resumed.step, resumed.values["epoch"]) if resumed else (0, 0)
        for number in range(epoch, 3):
            for batch in loader:
                (model(batch) - batch).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                seen.add(batch.sum())
                step += 1
                if manager.should_save(step):
                    manager.save(step, epoch=number, **objects)
    return outcome(model, optimizer, step, seen.total)


def lightning(directory, plugin=False, by_epoch=False, **options):
    """Lightning with the callback, or with its own ModelCheckpoint over the plugin.

    Lightning's own checkpoints have no random state, so with these the data are in order, and each step has a seed.
    """
    import lightning.pytorch as pl

    from statedict.integrations.lightning import StateDictCheckpoint, StateDictCheckpointIO

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.seen = network(), Sum()

        def training_step(self, batch, index):
            if plugin:
                torch.manual_seed(self.global_step)
            self.seen.add(batch.sum())
            return (self.network(batch) - batch).square().mean()

        def validation_step(self, batch, index):
            self.log("val_loss", (self.network(batch) - batch).square().mean())

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

        def on_save_checkpoint(self, checkpoint):
            checkpoint["seen"] = self.seen.state_dict()

        def on_load_checkpoint(self, checkpoint):
            self.seen.load_state_dict(checkpoint["seen"])

    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(data, 4, shuffle=not plugin)

        def val_dataloader(self):
            return DataLoader(data, 12)

    seed()
    module, path, data = Module(), None, Points()
    if plugin:
        data = [torch.full((4,), number / 24) for number in range(24)]
        callbacks = [pl.callbacks.ModelCheckpoint(directory, save_top_k=1, save_last=True)]
        options["plugins"] = [StateDictCheckpointIO()]
        found = Path(directory, "last.ckpt")
        path = found if found.exists() else None
    else:
        checkpoints = StateDictCheckpoint(directory, when=None if by_epoch else every(2), keep=last(2))
        callbacks = [pl.callbacks.EMAWeightAveraging(decay=0.5), checkpoints]
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(accelerator="cpu", callbacks=callbacks, **{"max_epochs": 3, **quiet, **options})
        trainer.fit(module, datamodule=Data(), ckpt_path=path)
    if plugin:
        seed()
    return outcome(module, trainer.optimizers[0], trainer.global_step, trainer.current_epoch, module.seen.total)


def plugin(directory):
    """Lightning's ModelCheckpoint over the plugin."""
    return lightning(directory, plugin=True)


def transformers(directory, trainer=None, **options):
    """transformers' Trainer, with a collator that draws random numbers."""
    from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

    from statedict.integrations.transformers import StateDictTrainer

    seen = Sum()

    class Texts(Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, index):
            return {"input_ids": torch.arange(8) + index}

    def collate(items):
        texts = torch.stack([item["input_ids"] for item in items])
        texts = torch.where(torch.rand(texts.shape) < 0.15, 0, texts)
        seen.add(texts.sum())
        return {"input_ids": texts, "labels": texts.clone()}

    seed()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    usual = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "save_steps": 2, "save_total_limit": 2, "seed": 3}
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_steps": 4}
    with contextlib.redirect_stdout(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(str(directory), **usual | quiet | options)
        data = {"train_dataset": Texts(), "eval_dataset": Texts(), "data_collator": collate}
        run = (trainer or StateDictTrainer)(model=model, args=arguments, **data)
        run.train(resume_from_checkpoint=True if trainer is None else None)
    if hasattr(run, "manager"):
        run.manager.close()
    return outcome(model, run.optimizer, run.state.global_step, run.state.epoch, run.lr_scheduler.get_last_lr())


def accelerate(directory):
    """accelerate with a prepared loader and an object of the caller's."""
    from accelerate import Accelerator

    from statedict.integrations.accelerate import AcceleratorCheckpoints

    seed()
    accelerator = Accelerator(cpu=True, project_dir=str(directory), gradient_accumulation_steps=2)
    accelerator.project_configuration.total_limit = 2
    plain = network()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4)
    model, optimizer, scheduler, loader = accelerator.prepare(
        plain, optimizer, scheduler, DataLoader(Points(), 4, shuffle=True)
    )
    loader, seen = ResumableLoader(loader), Sum()
    accelerator.register_for_checkpointing(loader, seen)
    with AcceleratorCheckpoints(accelerator) as manager:
        resumed = manager.resume()
        step, epoch = (resumed.step, resumed.values["epoch"]) if resumed else (0, 0)
        for number in range(epoch, 3):
            for batch in loader:
                with accelerator.accumulate(model):
                    accelerator.backward((model(batch) - batch).square().mean())
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                seen.add(batch.sum())
                step += 1
                if step % 2 == 0:
                    manager.save(step, epoch=number)
    return outcome(plain, optimizer, step, seen.total)


class Containers(list):
    """torchtitan's containers of optimizers and schedulers are iterable, and those of schedulers have one state."""

    def step(self):
        for each in self:
            each.step()

    def state_dict(self):
        return {"last_epoch": self[0].last_epoch}

    def load_state_dict(self, state):
        for each in self:
            each.last_epoch = state["last_epoch"]


class TitanLoader:
    """Has the interface of torchtitan's loader: an iterator with a state under the name of its rank."""

    def __init__(self):
        self.position = 0

    def __next__(self):
        self.position += 1
        return Points()[self.position % 24].expand(4, 4)

    def state_dict(self):
        return {"dp_rank_0": self.position, "world_size": 1}

    def load_state_dict(self, state):
        self.position = state["dp_rank_0"]


class Titan:
    """The part of torchtitan's trainer that has to do with checkpoints: the same calls in the same order."""

    def __init__(self, config):
        self.step, self.parts, self.loader = 0, [network(), network()], TitanLoader()
        self.optimizers = Containers(torch.optim.AdamW(part.parameters(), lr=1e-2) for part in self.parts)
        schedule = torch.optim.lr_scheduler.LambdaLR
        self.schedulers = Containers(schedule(each, lambda step: 1 / (1 + step)) for each in self.optimizers)
        built = {"model_parts": self.parts, "optimizers": self.optimizers, "lr_schedulers": self.schedulers}
        self.checkpointer = config.build(
            **built, dataloader=self.loader, states={"train_state": self}, sd_adapter=None, base_folder=""
        )

    def state_dict(self):
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, state):
        self.step = int(state["step"])

    def train(self, steps):
        self.checkpointer.load(step=-1)
        while self.step < steps:
            self.step += 1
            self.checkpointer.maybe_wait_for_staging()
            batch = next(self.loader)
            (self.parts[1](self.parts[0](batch)) - batch).square().mean().backward()
            self.optimizers.step()
            self.schedulers.step()
            for each in self.optimizers:
                each.zero_grad()
            self.checkpointer.save(self.step, last_step=self.step == steps)
        self.checkpointer.close()


def torchtitan(directory):
    """torchtitan's calls of its checkpoint manager."""
    from statedict.integrations.torchtitan import TitanCheckpoints

    seed()
    trainer = Titan(TitanCheckpoints.Config(enable=True, folder=str(directory), interval=2, keep_latest_k=2))
    trainer.train(12)
    found = [outcome(*pair, trainer.loader.position) for pair in zip(trainer.parts, trainer.optimizers)]
    return [*found, [each.last_epoch for each in trainer.schedulers]]


TRAININGS = {
    function.__name__: function for function in (loop, lightning, plugin, transformers, accelerate, torchtitan)
}
