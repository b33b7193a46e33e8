"""Which checkpoint is resumed: of this run or another, the newest, a step, or the best."""

import shutil

import pytest
from tests.training.objects import Counter

from statedict import CheckpointManager, any_of, best, every, last
from statedict.errors import FormatError, SaveError, UnknownFormatError, UnknownNameError
from statedict.training import all_steps


def run(directory, *losses):
    """A run whose checkpoints are the steps 1, 2, …; the counter's state is the step, and a hundred more in the run `b`."""
    offset = 100 if directory.name == "b" else 0
    with CheckpointManager(directory, keep=all_steps(), random=False) as manager:
        for step, loss in enumerate(losses, start=1):
            manager.save(step, {"loss": loss}, counter=Counter(offset + step))
    return manager


@pytest.fixture
def two(tmp_path):
    """The runs a (3 checkpoints) and b (2)."""
    return run(tmp_path / "a", 0.5, 0.1, 0.9), run(tmp_path / "b", 0.2, 0.3)


def resumed(manager, *run, **chosen):
    """The counter after a resume, and what was there of the run before and after is the same."""
    counter = Counter()
    manager.resume(*run, counter=counter, **chosen)
    return counter.count


def test_the_checkpoint_that_is_chosen(two):
    """A checkpoint of the run is chosen by its step, by `best` with any number and mode, or as a Saved of the manager."""
    a, _ = two
    assert resumed(a) == 3
    assert resumed(a, at=1) == resumed(a, at=a[1]) == 1
    assert resumed(a, at=best("loss")) == resumed(a, at=best("loss", n=2)) == resumed(a, at=a[best("loss")]) == 2
    assert resumed(a, at=best("loss", mode="max")) == 3


def test_the_checkpoint_of_another_run(two):
    """The first argument names the run; a Saved names its own. Nothing is written there, not even a lock."""
    a, b = two
    (b.directory / ".lock").unlink()
    before = sorted(path for path in b.directory.rglob("*"))
    assert resumed(a, b.directory) == resumed(a, str(b.directory), at=2) == 102
    assert resumed(a, b.directory, at=best("loss")) == resumed(a, at=b.best("loss")) == 101
    assert resumed(a, b.directory, at=b[1]) == resumed(a, at=b[1]) == 101
    assert sorted(path for path in b.directory.rglob("*")) == before
    assert [saved.step for saved in a.checkpoints] == [1, 2, 3]


def test_a_new_run_begins_from_another(two, tmp_path):
    """The line of a fine-tuning: this run, or, if it has no checkpoint yet, the best of the other."""
    _, b = two
    counter = Counter()
    with CheckpointManager(tmp_path / "new", random=False) as manager:
        for expected in (101, 7):
            found = manager.resume(counter=counter) or manager.resume(b.directory, at=best("loss"), counter=counter)
            assert counter.count == expected
            assert found.path.parent == (b.directory if expected == 101 else manager.directory)
            manager.save(1, counter=Counter(7))


def test_damaged_checkpoints_of_another_run_stay_where_they_are(two):
    """Damaged checkpoints of another run are passed over and reported; it is an error if all, or the named step, are."""
    a, b = two
    file = b.directory / "step-0000000002" / "counter.pt"
    file.write_bytes(b"")
    counter = Counter()
    found = a.resume(b.directory, counter=counter)
    assert (counter.count, [each.path for each in found.passed_over]) == (101, [file.parent])
    assert file.exists()
    with pytest.raises(FormatError, match="has 0 bytes"):
        a.resume(b.directory, at=2, counter=counter)
    (b.directory / "step-0000000001" / "counter.pt").write_bytes(b"")
    with pytest.raises(FormatError, match=f"{b.directory}: all checkpoints are damaged"):
        a.resume(b.directory, counter=counter)


def test_another_run_must_have_a_checkpoint(two, tmp_path):
    """An empty run of one's own is a beginning; another one is a mistake."""
    a, _ = two
    (tmp_path / "empty").mkdir()
    for name, told in (("empty", "has no checkpoints"), ("nowhere", "does not exist")):
        with pytest.raises(UnknownFormatError, match=f"{tmp_path / name}: the run to resume from {told}"):
            a.resume(tmp_path / name, counter=Counter())
        with pytest.raises(UnknownNameError):
            a.resume(tmp_path / name, at=1, counter=Counter())
    assert not (tmp_path / "nowhere").exists()


def test_what_is_not_there_is_named(two):
    """The error for a missing step or metric names those that exist."""
    a, b = two
    for run, act in (
        (a, lambda: a[7]),
        (a, lambda: a.resume(at=7)),
        (a, lambda: a.pin(7)),
        (b, lambda: a.resume(b.directory, at=7)),
    ):
        told = f"'7' is not in the steps of {run.directory}; did you mean '1' or '2'"
        with pytest.raises(UnknownNameError, match=told):
            act()
    for act in (lambda: a[best("los")], lambda: a.resume(at=best("los")), lambda: a.pin(best("los"))):
        with pytest.raises(
            UnknownNameError, match=f"'los' is not in the metrics of {a.directory}; did you mean 'loss'"
        ):
            act()
    shutil.rmtree(a.directory)
    with pytest.raises(UnknownNameError, match=f"'loss' is not in the metrics of {a.directory}$"):
        a.resume(at=best("loss"))


def test_steps_of_a_manager(two):
    """`in`, and the steps in order; a run without checkpoints is still a manager."""
    a, _ = two
    assert list(a) == [1, 2, 3]
    assert 3 in a
    assert 7 not in a
    shutil.rmtree(a.directory)
    assert list(a) == []
    assert a


@pytest.mark.parametrize(
    ("positional", "at", "error", "told"),
    [
        ((Counter(),), None, TypeError, r"the directory of another run, not .*; pass objects by name: resume\(model="),
        ((300,), None, TypeError, r"the directory of another run, not 300 \(int\); to select a step, pass at=300"),
        (("https://host/run",), None, SaveError, r"https://host/run: https:// can only be read"),
        (
            ("a/step-0000000003",),
            None,
            UnknownFormatError,
            r"/a/step-0000000003: this is a checkpoint, not a run: pass its run, '.*/a', and to resume from it, at=3",
        ),
        (
            (),
            "runs/b",
            TypeError,
            r"at= must be .*, not 'runs/b'; .* pass its directory first: resume\('runs/b'\)",
        ),
        ((), last(3), ValueError, r"last\(3\) does not select one checkpoint"),
        ((), any_of(every(3), best("loss")), ValueError, "does not select one checkpoint"),
        ((), 1.5, ValueError, "step must be an integer"),
        ((), True, ValueError, "step must be an integer"),
    ],
)
def test_what_chooses_nothing_is_refused(two, positional, at, error, told):
    """Each error says how it is written."""
    with pytest.raises(error, match=told):
        two[0].resume(*positional, at=at, counter=Counter())


def test_a_checkpoint_of_a_third_run_is_refused(two):
    """The run and the checkpoint must not contradict each other."""
    a, b = two
    with pytest.raises(ValueError, match=f"the checkpoint {a[1].path} is not in the run {b.directory}"):
        a.resume(b.directory, at=a[1])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((name, "reserved for a file of the checkpoint") for name in ("values", "random", "manifest")),
        *((name, r"a parameter of resume\(\)") for name in ("at", "options", "limits")),
    ],
)
def test_a_reserved_name_is_refused_when_it_is_saved(tmp_path, name, told):
    """A reserved name is refused when it is saved, not only when it is resumed."""
    with CheckpointManager(tmp_path, random=False) as manager:
        for given in (Counter(), [Counter()]):
            with pytest.raises(ValueError, match=f"'{name}' is {told}; rename the object"):
                manager.save(1, **{name: given})


def test_a_parameter_of_save_is_not_resumed(tmp_path):
    """`resume(step=3)` is told what it means; `self` and `run` are names like others."""
    with CheckpointManager(tmp_path, random=False) as manager:
        with pytest.raises(ValueError, match=r"'step' is a parameter of save\(\) \(to resume from a step, pass at=\)"):
            manager.resume(step=3)
        with pytest.raises(ValueError, match=r"'metrics' is a parameter of save\(\); rename the object"):
            manager.resume(metrics=Counter())
        with pytest.raises(ValueError, match="'values' is reserved for a file"):
            manager.resume(values={})
        manager.save(1, self=Counter(3), run=Counter(4))
        one, other = Counter(), Counter()
        manager.resume(self=one, run=other)
        assert (one.count, other.count) == (3, 4)
