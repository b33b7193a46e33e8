"""The manager against a plain model of its rules: any order of saves, prunes, damage, crashes and resumes."""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.training.objects import Value

from statedict import CheckpointManager, any_of, at_most, best, every, last, within
from statedict.errors import UnknownNameError
from statedict.training import Saved, _clock, expired

POLICIES = [
    last(1),
    last(3),
    any_of(last(2), every(3)),
    any_of(last(1), best("loss", n=2)),
    any_of(last(1), every(minutes=20)),
    within(hours=1),
    # A checkpoint of these has about 1,450 bytes.
    at_most(4000),
    at_most("6 kB", any_of(every(2), within(minutes=30))),
]


class Run(RuleBasedStateMachine):
    """`expected` is the plain model: step → (loss, time, size); `pins` are steps, with a checkpoint or without."""

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.expected, self.pins = {}, set()
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.clock = patch.object(_clock, "now", lambda: self.time)
        self.clock.start()
        self.damaged = 0
        self.manager = None

    @initialize(policy=st.sampled_from(POLICIES), asynchronous=st.booleans())
    def begin(self, policy, asynchronous):
        self.options = {"keep": policy, "asynchronous": asynchronous, "random": False, "durable": False}
        self.manager = CheckpointManager(self.directory, **self.options)

    @rule(step=st.integers(0, 12), loss=st.integers(0, 5), minutes=st.integers(0, 40))
    def save(self, step, loss, minutes):
        self.time += timedelta(minutes=minutes)
        self.manager.save(step, metrics={"loss": loss}, value=Value(step))
        self.manager.wait()
        size = (self.directory / f"step-{step:010d}" / "value.pt").stat().st_size
        self.expected[step] = loss, self.time, size
        for gone in expired(self.manager_view(), self.options["keep"]):
            if gone.step != step:
                del self.expected[gone.step]

    def manager_view(self):
        return [
            Saved(step, self.directory, {"loss": loss}, time, size, step in self.pins)
            for step, (loss, time, size) in sorted(self.expected.items())
        ]

    @rule(step=st.integers(0, 12))
    def pin(self, step):
        """A step that has a checkpoint, whatever its content is later."""
        if step in self.expected:
            self.manager.pin(step)
            self.pins.add(step)
        else:
            with pytest.raises(UnknownNameError, match=f"'{step}' is not in the steps of .*"):
                self.manager.pin(step)

    @rule(step=st.integers(0, 12))
    def unpin(self, step):
        self.manager.unpin(step)
        self.pins.discard(step)

    @rule(step=st.integers(0, 12))
    def choose(self, step):
        """A step, or the best, is what the model says; what is not there is an error, and changes nothing."""
        assert (step in self.manager) == (step in self.expected)
        value = Value(-1)
        if step in self.expected:
            assert self.manager[step].metrics == {"loss": self.expected[step][0]}
            assert self.manager.resume(at=step, value=value).step == step
            lowest = min(self.expected, key=lambda each: (self.expected[each][0], -each))
            assert self.manager[best("loss")].step == self.manager.best("loss").step == lowest
            assert self.manager.resume(at=best("loss"), value=value).step == lowest
            assert (value.array == lowest).all()
        else:
            with pytest.raises(UnknownNameError):
                self.manager[step]
            with pytest.raises(UnknownNameError):
                self.manager.resume(at=step, value=value)
            assert (value.array == -1).all()

    @rule(policy=st.sampled_from(POLICIES), dry_run=st.booleans())
    def prune(self, policy, dry_run):
        """What goes is what the pure function says of what is there; a preview says the same, and deletes nothing."""
        gone = [saved.step for saved in expired(self.manager_view(), policy)]
        assert gone == [saved.step for saved in self.manager.prune(policy, dry_run=dry_run)]
        if not dry_run:
            for step in gone:
                del self.expected[step]

    @rule()
    def crash_and_start_again(self):
        """A process that died left a half-written checkpoint; its lock went with it."""
        self.manager.close()
        (self.directory / ".saving-step-0000000099-1-deadbeef").mkdir(exist_ok=True)
        self.manager = CheckpointManager(self.directory, **self.options)

    @precondition(lambda self: len(self.expected) > 1)
    @rule()
    def the_newest_is_damaged(self):
        newest = max(self.expected)
        file = self.directory / f"step-{newest:010d}" / "value.pt"
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
        value = Value(-1)
        resumed = self.manager.resume(value=value)
        del self.expected[newest]
        self.damaged += 1
        assert [newest] == [passed.step for passed in resumed.passed_over]
        assert max(self.expected) == resumed.step

    @rule()
    def resume(self):
        value = Value(-1)
        resumed = self.manager.resume(value=value)
        if not self.expected:
            assert resumed is None
            return
        newest = max(self.expected)
        assert (newest, {"loss": self.expected[newest][0]}) == (resumed.step, resumed.metrics)
        assert (value.array == newest).all()

    @invariant()
    def what_is_there_is_what_the_rules_say(self):
        if self.manager is None:
            return
        listed = [(one.step, one.time, one.nbytes, one.pinned) for one in self.manager.checkpoints]
        assert listed == [(one.step, one.time, one.nbytes, one.pinned) for one in self.manager_view()]
        aside = [path for path in self.directory.iterdir() if path.name.startswith("damaged-")]
        assert self.damaged == len(aside)

    def teardown(self):
        if self.manager is not None:
            self.manager.close()
        self.clock.stop()
        shutil.rmtree(self.directory)


TestRun = Run.TestCase
TestRun.settings = settings(max_examples=40, stateful_step_count=15)
