"""The manager on a simulated computer: a slice of what `python -m tests.training.simulation` does at length."""

import pytest

from tests.training.simulation.explore import explore, explore_many
from tests.training.simulation.mutations import MUTATIONS

# Schedules in which a mistake must be found. Three of the mistakes need rare interleavings.
WITHIN = {"pin_not_checked_again": 3000, "tidied_without_flush": 3000, "replaced_is_lost": 1500}


def test_no_schedule_breaks_a_promise():
    """Whatever the order of system calls and wherever processes die and the power is cut, the five sentences are true."""
    outcomes = list(explore(range(60)))
    assert [(outcome.seed, outcome.failure) for outcome in outcomes if outcome.failure] == []
    assert sum(outcome.kills for outcome in outcomes) > 10
    assert sum(outcome.cuts for outcome in outcomes) > 10


@pytest.mark.parametrize("seed", [24, 994, 1307, 1471, 1664, 1679])
def test_schedules_that_once_broke_a_promise(seed):
    """Seeds of faults that were found and repaired."""
    (outcome,) = explore([seed])
    assert outcome.failure is None


def test_a_seed_determines_every_call():
    """The same seed has the same schedule, call by call, so that every failure can be seen again."""
    (one,), (other,) = (list(explore([7], log=True)) for _ in range(2))
    assert len(one.log) > 100
    assert one.log == other.log


@pytest.mark.parametrize("mutation", ["commit_before_flush", "prune_before_commit", "manifest_first"])
def test_mistakes_in_the_order_of_a_save_are_found(mutation):
    """A save that commits too early, or deletes too early, breaks a promise in one of the first schedules."""
    assert any(outcome.failure for outcome in explore_many(range(200), mutation, 1))


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mistakes_are_found(mutation):
    """Each mistake in the protocol is found within a bounded number of schedules."""
    outcomes = explore_many(range(WITHIN.get(mutation, 600)), mutation, 1)
    assert any(outcome.failure for outcome in outcomes)
