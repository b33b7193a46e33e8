"""What a save accepts a resume gives back; the rest is refused at once, by name, and nothing older goes."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import tempfile
import threading
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import statedict
from statedict import CheckpointManager, best, last
from statedict.errors import SaveError


class Mode(enum.Enum):
    ONE = 1


@dataclasses.dataclass
class Config:
    lr: float = 0.1


class Holder:
    """An object whose state is given to it."""

    def __init__(self, state=None):
        self.state = state

    def state_dict(self):
        return {"held": self.state}

    def load_state_dict(self, state):
        self.state = state["held"]


def meta():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].to("meta")
    return model


REFUSED = {
    "enum": (Mode.ONE, "Mode would be loaded as inert data: save what it contains as plain values"),
    "dataclass": (Config(), "Config would be loaded as inert data"),
    "function": (len, r"builtins.len.* would be loaded as inert data: save its name as text"),
    "lock": (threading.Lock(), "cannot pickle"),
    "inside": ({"deeper": [1, Mode.ONE]}, r"deeper/1: .*Mode would be loaded as inert"),
    "meta": (meta(), r"1\.weight: this tensor is on the meta device"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", ["value", "state"])
def test_what_would_not_come_back_is_refused(tmp_path, what, asynchronous, kind):
    """The error names the argument, the path in it and what to do; the older checkpoint stays, though only one is kept."""
    value, reason = REFUSED[what]
    with CheckpointManager(tmp_path, keep=last(1), asynchronous=asynchronous, random=False) as manager:
        manager.save(1, epoch=1)
        manager.wait()
        with pytest.raises(
            SaveError, match=f"(?s)argument.*{reason}" if kind == "value" else f"(?s)'argument'.*{reason}"
        ):
            manager.save(2, argument=Holder(value) if kind == "state" else value), manager.wait()
        assert [saved.step for saved in manager.checkpoints] == [1]
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "step-0000000001"}


def test_a_text_that_a_reader_would_refuse_is_refused(tmp_path):
    """A text is at most as long as a resume accepts by default."""
    with (
        CheckpointManager(tmp_path, random=False) as manager,
        pytest.raises(SaveError, match=r"(?s)'argument'.*exceeds the limit"),
    ):
        manager.save(1, argument=Holder("x" * (70 << 20)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: argparse.Namespace(lr=0.1, path=pathlib.Path("a")),
        lambda: types.SimpleNamespace(a=1),
        lambda: collections.defaultdict(list, a=[1]),
        lambda: datetime.date(2026, 1, 31),
        lambda: (decimal.Decimal("1.50"), fractions.Fraction(1, 3), 1j, b"x", frozenset({1}), range(3)),
        lambda: {"float": "hello"},
        lambda: {"float": "nan"},
        lambda: {"a": {"float": float("-inf")}},
        lambda: {1: "a", None: "b", (1, 2): "c"},
        lambda: 10**4000,
        lambda: "x" * 100_000,
        lambda: [float("nan"), "\udc80", -0.0],
        lambda: torch.float16,
    ],
)
def test_harmless_values_come_back(tmp_path, make):
    """Harmless values come back with their types, as values and inside the state of an object."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1, value=make(), holder=Holder(make()))
        holder = Holder()
        values = manager.resume(holder=holder).values
    assert repr(values["value"]) == repr(holder.state) == repr(make())


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.sampled_from([10**400, -(2**63), "nan", "inf", "float", Mode.ONE, Config(), len, "\ud800", 1j])
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.just("float"), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(trees, trees)
def test_a_save_is_refused_or_gives_back_what_it_was_given(value, state):
    """For any tree of values: resume gives the same, or the save raised and left nothing."""
    with (
        tempfile.TemporaryDirectory() as directory,
        CheckpointManager(directory, random=False, durable=False) as manager,
    ):
        try:
            manager.save(1, {"metric": 1}, value=value, holder=Holder(state))
        except SaveError:
            assert manager.resume() is None
            return
        holder = Holder()
        resumed = manager.resume(holder=holder)
        assert repr(resumed.values["value"]) == repr(value)
        assert repr(holder.state) == repr(state)


@pytest.mark.parametrize("name", ["float", "values", "", "a/b", "nan", "\ud800", "train/loss", "x" * 300])
def test_a_values_name_may_be_any_text(tmp_path, name):
    """A value may have any name; only those of the checkpoint's own files are refused."""
    with CheckpointManager(tmp_path, random=False) as manager:
        if name == "values":
            with pytest.raises(ValueError, match="is reserved for a file of the checkpoint"):
                manager.save(1, **{name: 1})
            return
        manager.save(1, **{name: "nan"})
        manager.save(2, {name: 2})
        assert manager.resume().metrics == {name: 2}
        assert manager.latest.metrics == {name: 2}


@pytest.mark.parametrize("step", [0, np.int64(3), np.uint8(7), torch.tensor(5), 10**12, 10**19 - 1], ids=str)
def test_a_step_is_any_whole_number_that_can_be_found_again(tmp_path, step):
    """A step is an integer of Python, NumPy or torch, up to the largest that `latest` finds."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(step, epoch=1)
        assert manager.latest.step == manager.resume().step == int(step)
        assert type(manager.latest.step) is int


@pytest.mark.parametrize("step", [10**19, -1, np.float64(1), np.bool_(True), None, "1", 1.5, True], ids=str)
def test_any_other_step_is_refused(tmp_path, step):
    """Any other step, or one too large for a name that `latest` finds, is refused before anything is written."""
    with (
        CheckpointManager(tmp_path / "run", random=False) as manager,
        pytest.raises(ValueError, match="step must be an integer from 0 to 9,999,999,999,999,999,999, not"),
    ):
        manager.save(step, epoch=1)
    assert not (tmp_path / "run").exists()


def test_metrics_may_be_very_large_integers(tmp_path):
    """Integers of 400 digits are ranked with other numbers, and NaN is not ranked."""
    with CheckpointManager(tmp_path, keep=best("loss"), random=False) as manager:
        for step, loss in enumerate([10**400, 3.5, float("inf"), float("nan"), -(10**400), 0, True]):
            manager.save(step, {"loss": loss})
        assert [saved.step for saved in manager.checkpoints] == [4, 6]
        assert manager.best("loss").metrics == {"loss": -(10**400)}


@pytest.mark.parametrize(
    "metric",
    [10**5000, "x" * 100_000, {"float": "inf"}, np.arange(2), torch.ones(2)],
    ids=["digits", "text", "", "", ""],
)
def test_a_metric_that_a_manifest_would_not_give_back_is_refused(tmp_path, metric):
    """A metric that a manifest would not give back is refused before anything is written."""
    with CheckpointManager(tmp_path, random=False) as manager:
        with pytest.raises((TypeError, ValueError), match=r"metric"):
            manager.save(1, {"loss": metric})
        assert manager.checkpoints == []


@pytest.mark.parametrize(
    "state", [None, 3, "text", [1, 2], (1, None), np.arange(3), torch.ones(2), [{"a": 1}, {"b": 2}]], ids=str
)
def test_an_objects_state_may_be_anything(tmp_path, state):
    """`load_state_dict` gets what `state_dict` returned, a mapping or not, from a run and from a file."""

    class Whole(Holder):
        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.state = state

    with CheckpointManager(tmp_path / "run", random=False) as manager:
        manager.save(1, holder=Whole(state))
        made = Whole("before")
        manager.resume(holder=made)
    assert type(made.state) is type(state)
    assert repr(made.state) == repr(state)
    statedict.save(Whole(state), tmp_path / "a.pt")
    statedict.load_state_dict(made, tmp_path / "a.pt", root="")
    assert repr(made.state) == repr(state)
    if not isinstance(state, list) or state == [1, 2]:
        statedict.load_state_dict(made, tmp_path / "a.pt")
        assert repr(made.state) == repr(state)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 70_000), max_size=8), st.booleans())
def test_values_of_any_size_do_not_go_through_the_manifest(sizes, asynchronous):
    """Small ones are in the manifest, which stays short however many there are; all come back as they were."""
    values = {f"text{number}": "x" * size for number, size in enumerate(sizes)}
    with (
        tempfile.TemporaryDirectory() as directory,
        CheckpointManager(directory, random=False, asynchronous=asynchronous) as manager,
    ):
        manager.save(1, epoch=3, **values)
        manager.wait()
        manifest = (manager.latest.path / "manifest.json").read_text()
        assert len(manifest) < 70_000
        assert '"epoch": 3' in manifest
        assert ("values.pt" in manifest) == (sum(sizes) + 2 * len(sizes) + 1 > 64 << 10)
        assert manager.resume().values == {"epoch": 3, **values}
