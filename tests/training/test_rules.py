"""The manager against a plain model of its rules: any order of saves, prunes, damage, crashes and resumes."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.training.objects import Value

from statedict import CheckpointManager, any_of, best, every, last
from statedict.training import expired

POLICIES = [last(1), last(3), any_of(last(2), every(3)), any_of(last(1), best("loss", n=2))]


class Run(RuleBasedStateMachine):
    """`expected` is the plain model: step → (metrics, whether it was damaged)."""

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.expected = {}
        self.damaged = 0
        self.manager = None

    @initialize(policy=st.sampled_from(POLICIES), asynchronous=st.booleans())
    def begin(self, policy, asynchronous):
        self.options = {"keep": policy, "asynchronous": asynchronous, "random": False, "durable": False}
        self.manager = CheckpointManager(self.directory, **self.options)

    @rule(step=st.integers(0, 12), loss=st.integers(0, 5))
    def save(self, step, loss):
        self.manager.save(step, metrics={"loss": loss}, value=Value(step))
        self.manager.wait()
        self.expected[step] = loss
        for gone in expired(self.manager_view(), self.options["keep"]):
            if gone.step != step:
                del self.expected[gone.step]

    def manager_view(self):
        from datetime import UTC, datetime

        from statedict.training import Saved

        now = datetime.now(UTC)
        return [Saved(step, self.directory, {"loss": loss}, now, 0) for step, loss in sorted(self.expected.items())]

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
        assert (newest, {"loss": self.expected[newest]}) == (resumed.step, resumed.metrics)
        assert (value.array == newest).all()

    @invariant()
    def what_is_there_is_what_the_rules_say(self):
        if self.manager is None:
            return
        assert sorted(self.expected) == [saved.step for saved in self.manager.checkpoints]
        aside = [path for path in self.directory.iterdir() if path.name.startswith("damaged-")]
        assert self.damaged == len(aside)

    def teardown(self):
        if self.manager is not None:
            self.manager.close()
        shutil.rmtree(self.directory)


TestRun = Run.TestCase
TestRun.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
