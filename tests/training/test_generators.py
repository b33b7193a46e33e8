"""Random generators are objects of a run: `save` and `resume` take them as they are."""

import random

import numpy as np
import pytest
import torch
from tests.training.objects import Counter

from statedict import CheckpointManager
from statedict.errors import LoadError

GENERATORS = {
    "torch": (lambda: torch.Generator().manual_seed(3), lambda one: torch.rand(3, generator=one).tolist()),
    "numpy": (lambda: np.random.default_rng(3), lambda one: one.normal(size=3).tolist()),
    "mersenne": (lambda: np.random.Generator(np.random.MT19937(3)), lambda one: one.integers(9, size=3).tolist()),
    "legacy": (lambda: np.random.RandomState(3), lambda one: one.normal(size=3).tolist()),
    "python": (lambda: random.Random(3), lambda one: [one.gauss(0, 1), one.random()]),
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", GENERATORS)
def test_a_resumed_generator_draws_what_the_saved_one_would_have_drawn(tmp_path, kind, asynchronous):
    """A resumed generator, alone or in a list, continues as saved; drawing after an asynchronous save changes nothing."""
    make, draw = GENERATORS[kind]
    one, several = make(), [make(), make()]
    draw(one), draw(several[1])
    with CheckpointManager(tmp_path, random=False, asynchronous=asynchronous) as manager:
        manager.save(1, generator=one, more=several)
        expected = [draw(each) for each in (one, *several)]
        one, several = make(), [make(), make()]
        resumed = manager.resume(generator=one, more=several)
    assert [draw(each) for each in (one, *several)] == expected
    assert list(resumed.reports) == ["generator", "more/0", "more/1"]
    assert resumed.values == {}


@pytest.mark.parametrize(("saved", "other"), [("torch", "numpy"), ("numpy", "mersenne"), ("python", "torch")])
def test_if_the_state_is_of_another_kind_nothing_is_loaded(tmp_path, saved, other):
    """The error names both kinds of generator, and all other objects have their own states again."""
    make, draw = GENERATORS[other]
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, counter=Counter(1), generator=GENERATORS[saved][0]())
        counter, generator = Counter(7), make()
        with pytest.raises(LoadError, match="does not fit"):
            manager.resume(counter=counter, generator=generator)
    assert (counter.count, draw(generator)) == (7, draw(make()))


def test_a_generator_inside_the_state_of_an_object_stays_a_value(tmp_path):
    """A generator in an object's `state_dict` is passed to its `load_state_dict` with its type."""
    counter = Counter(np.random.default_rng(3))
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, counter=counter)
        manager.resume(counter=(found := Counter()))
    assert found.count.random() == np.random.default_rng(3).random()


def test_the_generator_of_the_system_has_no_state(tmp_path):
    """`random.SystemRandom` is refused by name, and nothing is saved."""
    with CheckpointManager(tmp_path, random=False) as manager:
        with pytest.raises((TypeError, NotImplementedError), match="state"):
            manager.save(1, generator=random.SystemRandom())
        assert manager.checkpoints == []
