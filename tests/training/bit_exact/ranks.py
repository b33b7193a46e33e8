"""Trainings of several processes (ranks of gloo)."""

from __future__ import annotations

import os
import signal

import torch
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict  # as the rest: so that no rank has to import it
from tests import ranks
from tests.training.bit_exact.plain import train
from tests.training.bit_exact.row import Rows
from tests.training.bit_exact.run import EVERY, STEPS, seeded
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

ROWS = Rows()


def on_ranks(run, act, size=2):
    """Train on each rank, in a process of its own; end as the ranks have ended."""

    def train(rank):
        seeded()  # Python seeds its generator anew in a forked process
        act(run.of_rank(rank), rank)

    codes = [rank.code for rank in ranks.on_ranks(size, train, losses=run.last is not None)]
    if codes == [-signal.SIGKILL] * size:
        os.kill(os.getpid(), signal.SIGKILL)
    assert codes == [0] * size, codes


def train_ranks(run, parallel, *more, size=2):
    """Train a network that `parallel` distributes, with data and dropout of its own on each rank."""

    def act(run, rank):
        model = parallel(nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.1), *more, nn.Linear(32, 32), nn.Linear(32, 4)))
        torch.manual_seed(rank)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        train(run, model, optimizer, scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 4))

    on_ranks(run, act, size)


def sharded(model):
    return fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),)))


@ROWS.row("`DistributedDataParallel`, two ranks", ranks=2)
def ddp(run):
    train_ranks(run, DistributedDataParallel, nn.BatchNorm1d(32))


@ROWS.row("`DistributedDataParallel`, more than two ranks, with `find_unused_parameters=True`", ranks=3)
def ddp_fixed_buckets(run):
    train_ranks(
        run, lambda model: DistributedDataParallel(model, find_unused_parameters=True), nn.BatchNorm1d(32), size=3
    )


@ROWS.row("`DistributedDataParallel`, more than two ranks", exact=False, ranks=3)
def ddp_three(run):
    train_ranks(run, DistributedDataParallel, nn.BatchNorm1d(32), size=3)


@ROWS.row("FSDP2 (`fully_shard`)", ranks=2)
def fsdp(run):
    train_ranks(run, sharded, nn.LayerNorm(32))


@ROWS.row("FSDP2 with batch normalisation", exact=False, ranks=2)
def fsdp_buffers(run):
    train_ranks(run, sharded, nn.BatchNorm1d(32))


@ROWS.row("an object whose state differs between ranks: a generator, a data loader", ranks=2)
def rank_states(run):
    on_ranks(run, train_with_generator)


def train_with_generator(run, rank):
    manager = run.manager
    model = DistributedDataParallel(nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(rank)
    resumed = manager.resume(model=model, optimizer=optimizer)
    if resumed:
        generator.set_state(resumed.values["generators"][dist.get_rank()])
    for step in range(resumed.step + 1 if resumed else 1, STEPS + 1):
        loss = model(torch.randn(4, 8, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.done(step, loss, model=model, optimizer=optimizer)
        if step % EVERY == 0:
            generators = [None] * dist.get_world_size()
            dist.all_gather_object(generators, generator.get_state())
            manager.save(step, model=model, optimizer=optimizer, generators=generators)
