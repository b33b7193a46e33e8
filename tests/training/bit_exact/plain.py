"""Trainings that resume exactly by passing their objects to the manager, and some that do a little more."""

from __future__ import annotations

import random
import warnings

import numpy as np
import torch
from tests.training.bit_exact.row import Rows
from tests.training.bit_exact.run import EVERY, STEPS
from torch import nn
from torch.optim import lr_scheduler, swa_utils

ROWS = Rows()


def network():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def batch():
    """Inputs and targets that depend on all three global generators."""
    inputs = torch.randn(8, 8) * random.uniform(0.9, 1.1) + float(np.random.normal(scale=0.1))
    return inputs, inputs[:, :4].sin()


def loss_of(model):
    inputs, targets = batch()
    return nn.functional.mse_loss(model(inputs), targets)


def train(run, model, optimizer, *, step=None, **more):
    """The loop of most rows: `step` trains one step and returns its loss."""
    objects = {"model": model, "optimizer": optimizer, **more}

    def usual(number):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if "scheduler" in more:
            more["scheduler"].step()
        return loss

    resumed = run.manager.resume(**objects)
    for number in range(resumed.step + 1 if resumed else 1, STEPS + 1):
        loss = (step or usual)(number)
        run.done(number, loss, **objects)
        if number % EVERY == 0:
            run.manager.save(number, **objects)


def train_each(run, **objects):
    """Train several models in one loop: `objects` are mappings from the name of a training to its object."""
    resumed = run.manager.resume(**objects)
    for number in range(resumed.step + 1 if resumed else 1, STEPS + 1):
        losses = []
        for name, model in objects["models"].items():
            losses.append(loss_of(model))
            objects["optimizers"][name].zero_grad()
            losses[-1].backward()
            objects["optimizers"][name].step()
            if "schedulers" in objects:
                objects["schedulers"][name].step()
        flat = {f"{kind} {name}": each for kind, named in objects.items() for name, each in named.items()}
        run.done(number, losses, **flat)
        if number % EVERY == 0:
            run.manager.save(number, **objects)


# optimizers

SGDS = {"plain": {}, "fused": {"fused": True}, "nesterov": {"nesterov": True}}
ADAMS = {
    "plain": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "amsgrad": {"amsgrad": True},
    "tensor": {"lr": torch.tensor(0.01)},
}
OTHERS = {
    "Adadelta": {},
    "Adafactor": {},
    "Adagrad": {"lr_decay": 0.1},
    "Adam": {"amsgrad": True},
    "Adamax": {},
    "ASGD": {"t0": 2},
    "NAdam": {"momentum_decay": 0.1},
    "RAdam": {},
    "RMSprop": {"centered": True, "momentum": 0.9},
    "Rprop": {},
}


@ROWS.row("`SGD` with momentum")
def sgd(run):
    models = {name: network() for name in SGDS}
    usual = {"lr": 0.1, "momentum": 0.9}
    optimizers = {name: torch.optim.SGD(models[name].parameters(), **usual, **more) for name, more in SGDS.items()}
    train_each(run, models=models, optimizers=optimizers)


@ROWS.row("`AdamW`: plain, `foreach`, `fused`, `amsgrad`, with a tensor as `lr`")
def adamw(run):
    models = {name: network() for name in ADAMS}
    optimizers = {
        name: torch.optim.AdamW(models[name].parameters(), **{"lr": 0.01, **more}) for name, more in ADAMS.items()
    }
    schedulers = {name: lr_scheduler.ExponentialLR(optimizer, 0.9) for name, optimizer in optimizers.items()}
    train_each(run, models=models, optimizers=optimizers, schedulers=schedulers)


@ROWS.row("`LBFGS`", plain=None, search="strong_wolfe")
def lbfgs(run, search):
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4, history_size=5, line_search_fn=search)

    def step(number):
        inputs, targets = batch()

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            return loss

        return optimizer.step(closure)

    train(run, model, optimizer, step=step)


@ROWS.row("`Muon` for matrices, `AdamW` for the rest")
def muon(run):
    model = network()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    optimizers = [torch.optim.Muon(matrices, lr=0.01), torch.optim.AdamW(rest, lr=0.01)]
    resumed = run.manager.resume(model=model, optimizers=optimizers)
    for number in range(resumed.step + 1 if resumed else 1, STEPS + 1):
        loss = loss_of(model)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        run.done(number, loss, model=model, muon=optimizers[0], adamw=optimizers[1])
        if number % EVERY == 0:
            run.manager.save(number, model=model, optimizers=optimizers)


@ROWS.row("`SparseAdam`")
def sparse(run):
    model = nn.Embedding(16, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)

    def step(number):
        optimizer.zero_grad()
        loss = model(torch.randint(16, (5,))).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    train(run, model, optimizer, step=step)


@ROWS.row("every other optimizer of `torch.optim`")
def other(run):
    models = {name: network() for name in OTHERS}
    optimizers = {
        name: getattr(torch.optim, name)(models[name].parameters(), **options) for name, options in OTHERS.items()
    }
    train_each(run, models=models, optimizers=optimizers)


@ROWS.row("several parameter groups, each with its options")
def groups(run):
    model = network()
    decayed = [{"params": model[0].parameters(), "weight_decay": 0.1}, {"params": model[2].parameters(), "lr": 0.02}]
    optimizer = torch.optim.AdamW(decayed, lr=0.01, weight_decay=0.0)
    train(run, model, optimizer, scheduler=lr_scheduler.LambdaLR(optimizer, [lambda n: 0.9**n, lambda n: 0.8**n]))


# schedulers

SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda n: 0.9**n),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda n: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 5, 8], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 6),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=8),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 10, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 7),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, 3, mode="exp_range", gamma=0.99),
    "CyclicLR-function": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, 3, scale_fn=lambda x: 0.9**x),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 12),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=4), lr_scheduler.CosineAnnealingLR(o, 8)], [4]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 3), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.05, anneal_epochs=5),
}


@ROWS.row("every scheduler of `torch.optim.lr_scheduler` and `SWALR`")
def scheduler(run):
    models = {name: network() for name in SCHEDULERS}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for name, model in models.items()}
    schedulers = {name: make(optimizers[name]) for name, make in SCHEDULERS.items()}
    train_each(run, models=models, optimizers=optimizers, schedulers=schedulers)


@ROWS.row("`ReduceLROnPlateau`")
def plateau(run):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, cooldown=1)

    def step(number):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss.item())
        return loss

    train(run, model, optimizer, step=step, scheduler=scheduler)


# precision, averages, compilation


@ROWS.row("`autocast` and `GradScaler`", bfloat16=torch.bfloat16, float16=torch.float16)
def scaler(run, dtype):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)

    def step(number):
        with torch.autocast("cpu", dtype):
            loss = loss_of(model)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    train(run, model, optimizer, step=step, scaler=scaler)


@ROWS.row(
    "`AveragedModel`: EMA, SWA with `SWALR`, with and without buffers",
    ema={"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9), "use_buffers": True},
    swa={},
)
def average(run, options):
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = swa_utils.SWALR(optimizer, 0.05, anneal_epochs=3)
    averaged = swa_utils.AveragedModel(model, **options)

    def step(number):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        averaged.update_parameters(model)
        return loss

    train(run, model, optimizer, step=step, scheduler=scheduler, averaged=averaged)


@ROWS.row("`torch.compile`")
def compiled(run, backend="eager"):
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    train(run, torch.compile(model, backend=backend), optimizer)


@ROWS.row("`torch.compile`")
def inductor(run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what inductor imports uses torch.jit
        compiled(run, "inductor")


# what is in the model


@ROWS.row("dropout and random augmentation (RNG state, seeds)")
def dropout(run):
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 16), nn.AlphaDropout(0.1), nn.Linear(16, 4))
    train(run, model, torch.optim.SGD(model.parameters(), lr=0.1))


@ROWS.row("batch normalisation and other buffers")
def batch_norm(run):
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=None), nn.utils.spectral_norm(nn.Linear(16, 4)))
    train(run, model, torch.optim.SGD(model.parameters(), lr=0.1))


@ROWS.row("tied weights")
def tied(run):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4))
    model[2].weight = model[0].weight
    train(run, model, torch.optim.AdamW(model.parameters(), lr=0.01))


@ROWS.row("parameters frozen on the way")
def frozen(run):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def train_step(step):
        model[0].requires_grad_(step < 5)
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    train(run, model, optimizer, step=train_step)


# gradient accumulation


@ROWS.row("gradient accumulation, saved between the optimizer's steps")
def accumulated(run):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(number):
        optimizer.zero_grad()
        for _ in range(3):
            loss = loss_of(model) / 3
            loss.backward()
        optimizer.step()
        return loss

    train(run, model, optimizer, step=step)


@ROWS.row("gradient accumulation, saved between micro-steps with the gradients")
def micro_steps(run):
    manager, model = run.manager, network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    resumed = manager.resume(model=model, optimizer=optimizer)
    if resumed:
        for parameter, gradient in zip(model.parameters(), resumed.values["gradients"]):
            parameter.grad = gradient
    for step in range(resumed.step + 1 if resumed else 1, STEPS + 1):
        loss = loss_of(model) / 4
        loss.backward()
        if step % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        run.done(step, loss, model=model, optimizer=optimizer)
        if step % EVERY == 0:
            gradients = [parameter.grad for parameter in model.parameters()]
            manager.save(step, model=model, optimizer=optimizer, gradients=gradients)


@ROWS.row("gradient accumulation, saved between micro-steps without the gradients", exact=False)
def lost_gradients(run):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(number):
        loss = loss_of(model) / 4
        loss.backward()
        if number % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    train(run, model, optimizer, step=step)
