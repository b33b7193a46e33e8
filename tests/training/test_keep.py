"""Retention policies are pure functions of what is on disk."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.training import Saved, all_steps, any_of, best, every, expired, last, reasons
from statedict.training._keep import dump, parse, policy


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


def test_best_is_lowest_or_highest():
    """Any other word is refused."""
    with pytest.raises(ValueError, match='"min" or "max", not \'most\''):
        best("loss", mode="most")


def test_reasons_name_the_rules_that_keep():
    """Every rule that keeps a step is named; the newest stays without any; what has no reason expires."""
    saved = run(10, 20, 30, 40, loss=[3.0, 1.0, 2.0, 2.0])
    assert reasons(saved, any_of(every(20), any_of(best("loss")))) == {
        10: [],
        20: ["every(20)", "best('loss', 1, 'min')"],
        30: [],
        40: ["every(20)"],
    }
    assert reasons(saved, best("loss"))[40] == ["the newest is always kept"]


def test_a_rule_of_ones_own_has_no_written_form():
    """Any function is a policy; one that holds such a function cannot be written down, and is not half."""
    own = lambda saved: set()  # noqa: E731
    assert (dump(own), dump(any_of(last(1), own))) == (None, None)


@pytest.mark.parametrize(
    "written", [None, 3, [], ["last"], ["last", 0], ["os.system", "x"], ["any_of", 3], ["best", 3]]
)
def test_what_is_no_rule_is_refused(written):
    """A manifest's rules are checked as if they were given."""
    with pytest.raises(ValueError, match=r"retention policy|at least 1|name of a metric"):
        parse(written)


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
    assert set(gone) == {step for step, why in reasons(saved, keep).items() if not why}


@given(policies)
def test_a_rule_is_written_and_read(keep):
    """parse(dump(keep)) is the same rule, through JSON too, and its text is the call that makes it."""
    assert parse(json.loads(json.dumps(dump(keep)))) == keep
    assert eval(str(keep)) == keep  # noqa: S307


@pytest.mark.parametrize("keep", [3, np.int64(3)])
def test_a_number_is_last_of_it(keep):
    """`keep=3` is `last(3)`, also among others."""
    assert policy(keep) == last(3)
    assert any_of(keep, every(2)) == any_of(last(3), every(2))


@pytest.mark.parametrize("keep", ["3", True, 1.5, [last(1)], Saved])
def test_what_is_no_policy_is_refused(keep):
    """At once, and not at the first save that deletes something."""
    with pytest.raises(TypeError, match=r"keep= must be a policy such as last\(3\), or a number of checkpoints, not"):
        policy(keep)
    with pytest.raises(TypeError, match="keep= must be a policy"):
        any_of(last(1), keep)
