"""Trainings that read their data with a DataLoader, or with torchdata's StatefulDataLoader."""

from __future__ import annotations

from functools import partial

import torch
from tests.training.bit_exact.row import Rows
from tests.training.bit_exact.run import EVERY, STEPS
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

ROWS = Rows()
# Batches of four: five steps make an epoch, so that the twelve steps of a training end in the third.
SIZE = 20
WORKERS = {"0": 0, "2": 2}


class Numbers(Dataset):
    """A map-style data set; `augmented`: with noise of the generator that the process, or the worker, uses."""

    def __init__(self, *, augmented=True):
        self.augmented = augmented
        self.inputs = torch.randn(SIZE, 8, generator=torch.Generator().manual_seed(7))

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        inputs = self.inputs[index]
        return inputs + 0.1 * torch.randn(8) if self.augmented else inputs


class Indexed(Numbers):
    """A data set whose augmentation depends on the epoch and the index only."""

    def __init__(self, epoch):
        super().__init__(augmented=False)
        self.epoch = epoch

    def __getitem__(self, index):
        noise = torch.Generator().manual_seed(self.epoch * len(self) + index)
        return self.inputs[index] + 0.1 * torch.randn(8, generator=noise)


class Stream(IterableDataset):
    """An iterable data set whose state is its position."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        worker = get_worker_info()
        while True:
            number = self.position if worker is None else self.position * worker.num_workers + worker.id
            self.position += 1
            yield torch.randn(8, generator=torch.Generator().manual_seed(number))

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def network():
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.Linear(16, 4))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def train_on(model, optimizer, inputs):
    loss = nn.functional.mse_loss(model(inputs), inputs[:, :4].sin())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


# between epochs


def between_epochs(run, workers, DataLoader=DataLoader):
    manager, (model, optimizer), data = run.manager, network(), Numbers()
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(data, 4, shuffle=True, num_workers=workers, generator=generator)
    resumed = manager.resume(model=model, optimizer=optimizer, generator=generator)
    step = 5 * (resumed.step if resumed else 0)
    for epoch in range(resumed.step + 1 if resumed else 1, 4):
        for inputs in loader:
            step += 1
            loss = train_on(model, optimizer, inputs)
            run.done(step, loss, model=model, optimizer=optimizer)
        manager.save(epoch, model=model, optimizer=optimizer, generator=generator)


@ROWS.row("`DataLoader`, saved between epochs, with any number of workers", **WORKERS)
def epochs(run, workers):
    between_epochs(run, workers)


@ROWS.row("`DataLoader` with `persistent_workers=True` and random augmentation", exact=False)
def persistent(run):
    between_epochs(run, 2, partial(DataLoader, persistent_workers=True))


# in the middle of an epoch


def within_epochs(run, data_of, workers=0):
    manager, (model, optimizer) = run.manager, network()
    resumed = manager.resume(model=model, optimizer=optimizer)
    step, first, done = (resumed.step, resumed.values["epoch"], resumed.values["done"]) if resumed else (0, 0, 0)
    for epoch in range(first, 3):
        data = data_of(epoch)
        generator = torch.Generator().manual_seed(epoch)
        rest = torch.randperm(len(data), generator=generator).tolist()[done * 4 :]
        for inputs in DataLoader(data, 4, sampler=rest, num_workers=workers, generator=generator):
            loss = train_on(model, optimizer, inputs)
            step, done = step + 1, done + 1
            run.done(step, loss, model=model, optimizer=optimizer)
            if step % EVERY == 0:
                manager.save(step, model=model, optimizer=optimizer, epoch=epoch, done=done)
        done = 0


@ROWS.row("`DataLoader` in the middle of an epoch, without workers")
def position(run):
    within_epochs(run, lambda epoch: Numbers())


@ROWS.row("`DataLoader` in the middle of an epoch, with workers, without random augmentation")
def position_in_workers(run):
    within_epochs(run, lambda epoch: Numbers(augmented=False), 2)


@ROWS.row("`DataLoader` in the middle of an epoch, with random augmentation by index", **WORKERS)
def indexed(run, workers):
    within_epochs(run, Indexed, workers)


@ROWS.row("`DataLoader` in the middle of an epoch, with random augmentation in workers", exact=False)
def augmented_in_workers(run):
    within_epochs(run, lambda epoch: Numbers(), 2)


def steps(run, loader, /, **saved):
    """Train step by step: `saved` are the objects that are saved for the loader."""
    model, optimizer = network()
    objects = {"model": model, "optimizer": optimizer, **saved}
    resumed = run.manager.resume(**objects)
    step = resumed.step if resumed else 0
    while step < STEPS:
        for inputs in loader:
            step += 1
            loss = train_on(model, optimizer, inputs)
            run.done(step, loss, model=model, optimizer=optimizer)
            if step % EVERY == 0:
                run.manager.save(step, **objects)
            if step == STEPS:
                break


@ROWS.row("`DataLoader` in the middle of an epoch, without its position", exact=False)
def lost_position(run):
    generator = torch.Generator().manual_seed(0)
    steps(run, DataLoader(Numbers(augmented=False), 4, shuffle=True, generator=generator), generator=generator)


@ROWS.row("`IterableDataset` with a state, without workers")
def stream(run):
    data = Stream()
    loader = DataLoader(data, 4, generator=torch.Generator())
    steps(run, loader, data=data)


@ROWS.row("`IterableDataset` with a state, with workers", exact=False)
def stream_in_workers(run):
    data = Stream()
    steps(run, DataLoader(data, 4, num_workers=2, generator=torch.Generator()), data=data)


# torchdata


def shuffled_stateful(run, data, workers):
    from torchdata.stateful_dataloader import StatefulDataLoader
    from torchdata.stateful_dataloader.sampler import RandomSampler

    sampler = RandomSampler(data, generator=torch.Generator().manual_seed(0))
    loader = StatefulDataLoader(data, 4, sampler=sampler, num_workers=workers, generator=torch.Generator())
    steps(run, loader, loader=loader)


@ROWS.row("torchdata's `StatefulDataLoader`, with two generators", **WORKERS)
def stateful_loader(run, workers):
    shuffled_stateful(run, Numbers(augmented=not workers), workers)


@ROWS.row("`StatefulDataLoader` of an `IterableDataset` with a state", **WORKERS)
def stateful_stream(run, workers):
    from torchdata.stateful_dataloader import StatefulDataLoader

    loader = StatefulDataLoader(Stream(), 4, num_workers=workers, generator=torch.Generator())
    steps(run, loader, loader=loader)


@ROWS.row("`StatefulDataLoader` with random augmentation in workers", exact=False)
def stateful_augmented(run):
    shuffled_stateful(run, Numbers(), 2)


@ROWS.row("`StatefulDataLoader(shuffle=True)`, with one generator or none", exact=False, none={}, one={"seed": 0})
def stateful_shuffle(run, options):
    from torchdata.stateful_dataloader import StatefulDataLoader

    more = {"generator": torch.Generator().manual_seed(options["seed"])} if options else {}
    loader = StatefulDataLoader(Numbers(), 4, shuffle=True, **more)
    steps(run, loader, loader=loader)
