"""Retention policies are pure functions of what is on disk."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.training import Saved, all_steps, any_of, best, every, expired, last


def run(*steps, **metrics):
    """A fake run: its steps, and for each metric a value a step."""
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Saved(step, Path(str(step)), {name: values[i] for name, values in metrics.items()}, time, 1)
        for i, step in enumerate(steps)
    ]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (last(2), {30, 40}),
        (every(20), {20, 40}),
        (best("loss"), {20}),
        (best("loss", n=2), {20, 40}),
        (best("loss", mode="max"), {10}),
        (best("accuracy"), set()),
        (any_of(last(1), best("loss")), {20, 40}),
        (any_of(), set()),
        (all_steps(), {10, 20, 30, 40}),
    ],
)
def test_a_policy_says_which_steps_stay(keep, kept):
    """Each policy by example; a metric that is NaN or absent is never the best."""
    saved = run(10, 20, 30, 40, loss=[3.0, 1.0, float("nan"), 2.0])
    assert kept == keep(saved)


def test_of_equally_good_ones_the_newer_stays():
    """A tie goes to the newer checkpoint, for lowest and for highest."""
    saved = run(1, 2, 3, loss=[1.0, 1.0, 2.0])
    assert {2} == best("loss")(saved)
    assert {2} == best("loss", mode="max")(run(1, 2, 3, loss=[1.0, 1.0, 0.0]))


@pytest.mark.parametrize("policy", [lambda: last(0), lambda: every(0), lambda: best("loss", n=0)])
def test_a_policy_that_keeps_nothing_is_a_mistake(policy):
    """Numbers below 1 are refused when the policy is made, not when checkpoints are gone."""
    with pytest.raises(ValueError, match="at least 1, not 0"):
        policy()


policies = st.recursive(
    st.integers(1, 5).map(last) | st.integers(1, 5).map(every) | st.integers(1, 3).map(lambda n: best("loss", n)),
    lambda inner: st.lists(inner, max_size=3).map(lambda some: any_of(*some)),
)


@given(policies, st.lists(st.floats(), min_size=1, max_size=12))
def test_the_newest_never_expires_and_the_kept_stay(keep, losses):
    """expired is what is neither kept nor the newest, oldest first."""
    saved = run(*range(len(losses)), loss=losses)
    gone = [s.step for s in expired(saved, keep)]
    assert sorted(gone) == gone
    assert len(losses) - 1 not in gone
    assert set(gone) == set(range(len(losses))) - keep(saved) - {len(losses) - 1}
