"""Phases about when to save, and about what follows a save."""

import os
import signal

import torch.distributed as dist
from tests.training.objects import Counter

from statedict import CheckpointManager, any_of, best, every, last, on_preemption
from statedict.errors import StateDictError
from statedict.training import _clock


def asks(kind, size, directory):
    """When to save, if clocks, functions and signals differ between the ranks: the steps, and when SIGTERM went on."""
    rank, saved, came = dist.get_rank(), [], []
    _clock.monotonic = lambda: 100.0 * step if rank else 25.0 * step
    step = 0
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(step))
    when = any_of(every(minutes=1), lambda step: step == (1 if rank == 0 else 2), on_preemption)
    with CheckpointManager(directory, when=when, asynchronous=kind == "background") as manager:
        for step in range(1, 9):
            if step == 6 and rank == size - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            if manager.should_save(step):
                saved.append(step)
                manager.save(step, counter=Counter(step))
    return {"saved": saved, "came": came, "there": list(manager)}


def meanwhile(kind, size, directory):
    """SIGTERM comes to one rank during a save: where every rank is when it goes on."""
    rank, came = dist.get_rank(), []
    step = 0
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(step))

    class Signalled(Counter):
        def state_dict(self):
            if rank == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().state_dict()

    when = any_of(every(2), on_preemption)
    with CheckpointManager(directory, when=when, asynchronous=kind == "background") as manager:
        for step in range(1, 5):
            if manager.should_save(step):
                manager.save(step, counter=Signalled(step) if step == 2 else Counter(step))
    return {"came": came, "there": list(manager)}


def raises(kind, size, directory):
    """A function that says when to save, and raises on rank 0: what each rank is told."""
    with CheckpointManager(directory, when=lambda step: 1 / 0 if dist.get_rank() == 0 else True) as manager:
        try:
            manager.should_save(1)
        except (ArithmeticError, StateDictError) as error:
            return f"{type(error).__name__}: {error}"


def follows(kind, size, directory):
    """after_save, pins, and a resume from another run: who was called, and what each rank is told."""
    called, told = [], []

    def after_save(saved):
        called.append(saved.step)
        if saved.step == 1:
            manager.pin(saved)
        if saved.step == 3:
            manager.resume(at=saved, counter=Counter())

    with CheckpointManager(directory, keep=last(1), after_save=after_save) as manager:
        for step in (1, 2, 3):
            try:
                manager.save(step, {"loss": step}, counter=Counter(step))
            except StateDictError as error:
                told.append(f"{type(error).__name__}: {error}")
        manager.pin(best("loss", mode="max"))
        manager.save(4, counter=Counter(4))
        there = [(saved.step, saved.pinned) for saved in manager.checkpoints]
        dist.barrier()
        manager.unpin(1)
        counter = Counter()
        CheckpointManager(f"{directory}-new").resume(directory, at=best("loss"), counter=counter)
        dist.barrier()
        pruned = [[(saved.step, saved.pinned) for saved in manager.prune(dry_run=dry)] for dry in (True, False, True)]
    return {"called": called, "told": told, "there": there, "pruned": pruned, "count": counter.count}
