"""The parameter groups of several ranks' optimizers, as one state."""

import pytest

from statedict.errors import SaveError

torch = pytest.importorskip("torch")
from statedict.torch import join_groups  # noqa: E402


def groups(*names, rates=(0.1, 0.2)):
    return [{"params": list(some), "lr": rate} for some, rate in zip(names, rates)]


def test_each_name_is_in_the_group_of_every_rank_that_has_it():
    """Names are joined by group, each once; ranks with the same names have nothing to join."""
    assert join_groups([groups("ab", "c"), groups("b", "d")]) == [["a", "b"], ["c", "d"]]
    assert join_groups([groups("a", "b"), groups("a", "b", rates=(1, 2))]) is None


def test_a_name_has_the_same_options_on_all_ranks():
    """A name in two groups is refused if their options differ: a resume would give one rank the other one's."""
    with pytest.raises(SaveError, match="'b' in parameter groups with different options: put it in the same group"):
        join_groups([groups("a", "b"), groups("b", "c")])
    assert join_groups([groups("a", "b", rates=(1, 1)), groups("b", "c", rates=(1, 1))]) == [["a", "b"], ["b", "c"]]
