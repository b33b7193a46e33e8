"""The manager on a simulated computer, with a disk or a store: what `python -m tests.training.simulation` does at length."""

import os
from contextlib import contextmanager
from random import Random

import pytest
from tests.training.simulation.calls import CALLS, ROOT
from tests.training.simulation.computer import Computer
from tests.training.simulation.explore import explore, explore_many
from tests.training.simulation.mutations import MUTATIONS, mutated
from tests.training.simulation.world import RUN, WORLDS

from statedict import CheckpointManager

# The simulated computer is one with Linux.
pytestmark = pytest.mark.only_on("linux")
# Schedules in which a mistake must be found. Some need rare interleavings.
# Found only after 600 schedules or more, by `python -m tests.training.simulation --mutation NAME --schedules 3000`.
RARE = {
    *("pin_not_checked_again", "pin_not_looked_up", "tidied_without_flush", "replaced_is_lost", "not_compared_again"),
}

FREQUENT = [
    ("disk", "commit_before_flush"),
    ("disk", "prune_before_commit"),
    ("disk", "manifest_first"),
    ("store", "prune_before_commit"),
    ("store", "manifest_uploaded_first"),
    ("store", "put_without_condition"),
    ("store", "name_used_again"),
]


@pytest.mark.parametrize("world", WORLDS)
def test_no_schedule_breaks_a_promise(world):
    """Whatever the order of calls and wherever processes die and the power is cut, the five sentences are true."""
    outcomes = list(explore(range(60), world))
    assert [(outcome.seed, outcome.failure) for outcome in outcomes if outcome.failure] == []
    assert sum(outcome.kills for outcome in outcomes) > 10
    assert sum(outcome.cuts for outcome in outcomes) > 10


@pytest.mark.parametrize(
    ("world", "seed", "mutation"),
    [
        ("disk", 340, "not_compared_again"),
        ("disk", 290, "replaced_is_lost"),
        ("disk", 1021, "tidied_without_flush"),
    ],
)
def test_faults_that_were_found_here_stay_repaired(world, seed, mutation):
    """The schedule in which a fault shows: it breaks a promise with the fault, and none without."""
    with mutated(mutation, world):
        (broken,) = explore([seed], world)
    (outcome,) = explore([seed], world)
    assert broken.failure is not None
    assert outcome.failure is None


@contextmanager
def after_a_cut(seed, first, second):
    """What is left when a process has done `first` and died, another one `second`, and then the power was cut."""
    computer = Computer(Random(seed), crashes=0)
    computer.medium.create(ROOT, folder=True)
    computer.medium.sync(computer.medium.root)
    with CALLS.installed():
        CALLS.computer = computer
        try:
            for act in (first, second):
                computer.start("process")
                act()
                computer.end()
            computer.medium.cut(computer.random)
            computer.start("process")
            yield
            computer.end()
        finally:
            CALLS.computer = None


def save(step=1):
    with CheckpointManager(RUN, random=False) as manager:
        manager.save(step, epoch=step)


def save_and_pin():
    save()
    os.mkdir(f"{RUN}/.pins")
    CheckpointManager(RUN).pin(1)


@pytest.mark.parametrize("seed", range(8))
def test_a_save_flushes_the_directory_that_a_dead_process_has_created(seed):
    """The process that created the run's directory died before it could flush its name; a later save is durable anyway."""
    with after_a_cut(seed, lambda: os.mkdir(RUN), save):
        assert [saved.step for saved in CheckpointManager(RUN).checkpoints] == [1]


@pytest.mark.parametrize("seed", range(8))
def test_a_pin_flushes_the_directory_that_a_dead_process_has_created(seed):
    """A pin is durable, although the process that created the directory of the pins died before it could flush its name."""
    with after_a_cut(seed, lambda: None, save_and_pin):
        assert [saved.pinned for saved in CheckpointManager(RUN).checkpoints] == [True]


@pytest.mark.parametrize("world", WORLDS)
def test_a_seed_determines_every_call(world):
    """The same seed has the same schedule, call by call, so that every failure can be seen again."""
    (one,), (other,) = (list(explore([7], world, log=True)) for _ in range(2))
    assert len(one.log) > 50
    assert one.log == other.log


@pytest.mark.parametrize(("world", "mutation"), FREQUENT)
def test_mistakes_in_the_order_of_a_save_are_found(world, mutation):
    """A save that commits too early, or deletes too early or too much, breaks a promise in one of the first schedules."""
    assert any(outcome.failure for outcome in explore_many(range(200), mutation, world))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "mutation"),
    [(w, name) for w in WORLDS for name in MUTATIONS[w] if name not in RARE and (w, name) not in FREQUENT],
)
def test_mistakes_are_found(world, mutation):
    """Each other mistake in the protocol is found within a bounded number of schedules."""
    assert any(outcome.failure for outcome in explore_many(range(600), mutation, world))
