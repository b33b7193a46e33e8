"""Retention policies are pure functions of what is on disk."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from statedict.training import (
    Saved,
    all_steps,
    any_of,
    at_most,
    best,
    every,
    expired,
    last,
    on_preemption,
    reasons,
    within,
)
from statedict.training._keep import SavedCheckpoints, dump, parse, policy


def run(*steps, **metrics):
    """A fake run: its steps, and for each metric a value a step; ten minutes apart, of one byte."""
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Saved(
            step, Path(str(step)), {n: values[i] for n, values in metrics.items()}, time + timedelta(minutes=10 * i), 1
        )
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
        (every(minutes=20), {10, 30}),
        (within(minutes=10), {30, 40}),
        (within(minutes=9.5), {40}),
        (at_most(2), {30, 40}),
        (at_most("1 kB"), {10, 20, 30, 40}),
        (at_most(2, any_of(last(1), every(20))), {20, 40}),
        (at_most(1, every(20)), {40}),
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


@pytest.mark.parametrize(
    "policy", [lambda: last(0), lambda: every(0), lambda: best("loss", n=0), lambda: at_most(0), lambda: every(-3)]
)
def test_a_policy_that_keeps_nothing_is_a_mistake(policy):
    """Numbers below 1 are refused when the policy is made, not when checkpoints are gone."""
    with pytest.raises(ValueError, match=r"at least 1.* not (0|-3)"):
        policy()


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf"), "two", [1]])
@pytest.mark.parametrize("policy", [every, within])
def test_a_duration_is_positive_and_finite(policy, hours):
    """Anything else is refused when the policy is made."""
    with pytest.raises(ValueError, match=r"(every|within)\(hours=.*\) is not a valid duration"):
        policy(hours=hours)


def test_a_duration_has_parts():
    """Days, hours and minutes add up; neither is a mistake, and so are steps and a time."""
    assert within(days=1, hours=2)(run(1, 2)) == {1, 2}
    with pytest.raises(ValueError, match=r"within\(\) needs a time"):
        within()
    for options in ({}, {"steps": 3, "minutes": 3}):
        with pytest.raises(ValueError, match="needs either steps or a time"):
            every(**options)


def test_what_says_when_to_save_does_not_say_what_to_keep():
    """on_preemption as `keep` is a mistake, wherever it stands."""
    for keep in (on_preemption, any_of(last(3), any_of(on_preemption))):
        with pytest.raises(ValueError, match="on_preemption says when to save, not what to keep"):
            policy(keep)


def test_best_is_lowest_or_highest():
    """A mode of `best` other than min and max is refused."""
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
    "written",
    [
        *(None, 3, [], ["last"], ["last", 0], ["os.system", "x"], ["any_of", "x"], ["best", 3], ["on_preemption"]),
        *(["within"], ["within", {"days": 1e308}], ["within", {"years": 1}], ["within", {"days": "x"}], [["last"], 3]),
        *(["every", {"minutes": 0}], ["every", 3, {"minutes": 3}], ["at_most", "9" * 400 + "GB"], ["at_most", 0]),
    ],
    ids=str,
)
def test_what_is_no_rule_is_refused(written):
    """A manifest's rules are checked as if they were given."""
    told = r"retention policy|at least 1|name of a metric|needs a time|needs either|not a valid duration|is too large"
    with pytest.raises(ValueError, match=told):
        parse(written)


minutes = st.integers(1, 200) | st.floats(0.5, 200)
policies = st.recursive(
    st.one_of(
        st.integers(1, 5).map(last),
        st.integers(1, 5).map(every),
        st.integers(1, 3).map(lambda n: best("loss", n)),
        minutes.map(lambda n: every(minutes=n)),
        minutes.map(lambda n: within(minutes=n)),
        st.integers(1, 60).map(at_most),
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda some: any_of(*some)) | st.builds(at_most, st.integers(1, 60), inner)
    ),
)


@st.composite
def runs(draw):
    """Checkpoints in the order of their steps: with losses, times that may go back, sizes, and pins."""
    count = draw(st.integers(1, 12))
    saved = run(*range(count), loss=draw(st.lists(st.floats(), min_size=count, max_size=count)))
    facts = st.tuples(st.integers(0, 500), st.integers(0, 20), st.booleans())
    return [
        replace(one, time=one.time + timedelta(minutes=when), nbytes=nbytes, pinned=pinned)
        for one, (when, nbytes, pinned) in zip(saved, draw(st.lists(facts, min_size=count, max_size=count)))
    ]


@given(policies, runs())
def test_the_newest_and_the_pinned_never_expire_and_the_kept_stay(keep, saved):
    """expired is what is neither kept nor pinned nor the newest, oldest first; and reasons tell the same."""
    gone = [s.step for s in expired(saved, keep)]
    always = {len(saved) - 1} | {s.step for s in saved if s.pinned}
    assert sorted(gone) == gone
    assert set(gone) == {s.step for s in saved} - keep(saved) - always
    told = reasons(saved, keep)
    assert set(gone) == {step for step, why in told.items() if not why}
    assert {step for step, why in told.items() if "pinned" in why} == {s.step for s in saved if s.pinned}


@given(policies, runs())
def test_what_is_kept_is_kept_again(keep, saved):
    """A second prune deletes nothing: a policy keeps again what it has kept, unless `at_most` deletes the checkpoint from
    which `every(minutes=)` counts."""
    assume(not ("at_most" in repr(keep) and "every(" in repr(keep)))
    gone = expired(saved, keep)
    assert expired([s for s in saved if s not in gone], keep) == []


def kept_by_time(saved, minutes):
    """The model of every(minutes=): one checkpoint after the other."""
    kept = []
    for one in sorted(saved, key=lambda s: s.time):
        if not kept or (one.time - kept[-1]).total_seconds() >= 60 * minutes:
            kept.append(one.time)
    return kept


@given(runs(), st.integers(1, 300))
def test_every_so_much_time_keeps_them_apart(saved, minutes):
    """The oldest is kept, those kept are at least so far apart, and every other one is closer to the one before it."""
    kept = every(minutes=minutes)(saved)
    assert sorted(s.time for s in saved if s.step in kept) == kept_by_time(saved, minutes)


@given(runs(), st.integers(1, 100), policies)
def test_at_most_keeps_the_newest_that_fit(saved, nbytes, keep):
    """Those kept fit beside the pinned; one more would not; and they are the newest of what the inner policy keeps."""
    chosen = at_most(nbytes, keep)(saved)
    asked = keep(saved) | {max(s.step for s in saved)} | {s.step for s in saved if s.pinned}
    rest = sorted(asked - chosen, key=lambda step: (saved[step].pinned, step))
    assert chosen <= asked
    assert sum(saved[step].nbytes for step in chosen) <= nbytes
    if rest:
        assert sum(saved[step].nbytes for step in (*chosen, rest[-1])) > nbytes
        assert all((saved[step].pinned, step) > (saved[rest[-1]].pinned, rest[-1]) for step in chosen)


@given(runs(), st.integers(1, 300))
def test_within_counts_from_the_newest(saved, minutes):
    """`within` counts from the newest checkpoint, not from now: a run that has ended keeps its checkpoints."""
    newest = max(s.time for s in saved)
    assert within(minutes=minutes)(saved) == {
        s.step for s in saved if (newest - s.time).total_seconds() <= 60 * minutes
    }


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
    """A value that is not a policy is refused when the manager is made, not at the first save that deletes something."""
    with pytest.raises(TypeError, match=r"keep= must be a policy such as last\(3\), or a number of checkpoints, not"):
        policy(keep)
    with pytest.raises(TypeError, match="keep= must be a policy"):
        any_of(last(1), keep)


def test_a_list_of_checkpoints_in_a_notebook():
    """Checkpoints are a list, which a notebook shows as a table: step, metrics, size; nothing in them is markup."""
    saved = [replace(run(10)[0], metrics={"loss": 0.51234567, "<b>": 1}, nbytes=2_500_000, pinned=True)]
    html = SavedCheckpoints(saved)._repr_html_()
    assert SavedCheckpoints(saved) == saved
    assert "1 checkpoint<" in html
    assert "<code>step 10 (pinned)</code></td><td>loss 0.5123, &lt;b&gt; 1, 2.5 MB, " in html
    assert "0 checkpoints" in SavedCheckpoints()._repr_html_()
