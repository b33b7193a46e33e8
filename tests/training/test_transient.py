"""What cannot be read now is not damaged: whatever the system refuses, resume renames nothing and passes over nothing."""

import errno
import os
import shutil
import sys

import numpy as np
import pytest

from statedict import CheckpointManager
from statedict.errors import LimitError
from statedict.formats import Limits
from statedict.training.resuming import _find, _retry
from statedict.training.run_directory._manifest import NewerVersionError, dump, read

REFUSED = [errno.EACCES, errno.ESTALE, errno.EMFILE, errno.EIO, None]
MODULES = {"posix", "_io", "io", "mmap", "fcntl"}


class Value:
    """An object whose state is one array, and which remembers how it was loaded."""

    def __init__(self, value=-1.0):
        self.array = np.full(3, value)

    def state_dict(self):
        return {"array": self.array}

    def load_state_dict(self, state):
        self.array = np.asarray(state["array"])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two checkpoints; tries follow each other at once."""
    monkeypatch.setattr(_retry, "PAUSES", (0, 0))
    with CheckpointManager(tmp_path / "run", random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step), pair=(1, step))
        manager.resume(value=Value())
    return tmp_path / "run"


def content(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*"))


def refusing(first, last, number):
    """A profile function that refuses the calls to the system from the `first` to the `last`; and how many it has seen."""
    seen = [0]

    def watch(frame, event, function):
        if event != "c_call" or getattr(function, "__module__", None) not in MODULES or function.__name__ == "close":
            return
        seen[0] += 1
        if first <= seen[0] <= last:
            sys.setprofile(watch if seen[0] < last else None)
            raise MemoryError if number is None else OSError(number, os.strerror(number))

    return watch, seen


def resumed(run, watch):
    """Resume while the system refuses calls: the step, or the error."""
    value = Value()
    manager = CheckpointManager(run, random=False)
    sys.setprofile(watch)
    try:
        found = manager.resume(value=value)
    except (OSError, MemoryError) as error:
        return error, value
    finally:
        sys.setprofile(None)
        manager.close()
    assert not found.passed_over
    return found.step, value


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="a profile function that raises is taken away since Python 3.12"
)
@pytest.mark.parametrize("number", REFUSED, ids=lambda number: errno.errorcode.get(number, "MemoryError"))
@pytest.mark.parametrize("often", [1, 1000], ids=["once", "from then on"])
def test_a_fault_at_each_call_of_resume_renames_nothing(run, number, often):
    """Each call to the system is refused, once or for good: resume gives the newest checkpoint or raises, and never an older
    one; what lies in the directory stays as it is, and so does the object where it raises."""
    before, first = content(run), 1
    while True:
        watch, seen = refusing(first, first + often - 1, number)
        result, value = resumed(run, watch)
        if not isinstance(result, (OSError, MemoryError)):
            assert (result, value.array.tolist()) == (2, [2.0] * 3)
        else:
            assert value.array.tolist() == [-1.0] * 3
        assert content(run) == before
        if seen[0] < first:
            break
        first += 1
    assert first > 20, "the calls were not seen"


def test_a_fault_that_passes_is_waited_for(run, monkeypatch):
    """A checkpoint that cannot be read twice and then can is resumed from."""
    tries = []

    def verify(path):
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.ESTALE, "stale")
        return genuine(path)

    genuine = _find.verify
    monkeypatch.setattr(_find, "verify", verify)
    with CheckpointManager(run, random=False) as manager:
        assert manager.resume(value=Value()).step == 2
    assert len(tries) == 3


def test_an_error_says_that_it_is_not_damage(run, monkeypatch):
    """The error is the system's own, and its note says what to do."""

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(_find, "verify", refuse)
    with (
        CheckpointManager(run, random=False) as manager,
        pytest.raises(PermissionError, match="step 2 cannot be read at the moment, so it may be undamaged") as caught,
    ):
        manager.resume(value=Value())
    assert "move" in caught.value.__notes__[0]


def test_a_list_without_a_checkpoint_that_cannot_be_read_would_be_wrong(run, monkeypatch):
    """`checkpoints` raises where a manifest cannot be read now, so that no rule of retention goes by the others."""
    from statedict.training.run_directory import _layout

    def refuse(path):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(_layout, "describe", refuse)
    manager = CheckpointManager(run)
    with pytest.raises(OSError, match="I/O error"):
        _ = manager.checkpoints


def test_a_checkpoint_of_a_newer_version_is_not_damaged(run, monkeypatch):
    """Its manifest is whole: resume says that a newer version is needed, and goes back to nothing older."""
    from statedict.training.run_directory import _manifest

    path = run / "step-0000000002"
    manifest = read(path)
    monkeypatch.setattr(_manifest, "VERSION", 2)
    (path / "manifest.json").write_bytes(dump(manifest))
    monkeypatch.undo()
    before = content(run)
    with (
        CheckpointManager(run, random=False) as manager,
        pytest.raises(NewerVersionError, match="upgrade statedict: a newer version wrote this checkpoint"),
    ):
        manager.resume(value=Value())
    assert content(run) == before


def test_limits_are_the_callers_and_exceeding_them_is_not_damage(run):
    """`limits` of the manager or of one resume say what reading may cost; beyond them it raises, and renames nothing."""
    before = content(run)
    with CheckpointManager(run, random=False, limits=Limits(pickle_bytes=10)) as manager:
        value = Value()
        with pytest.raises(LimitError, match="exceeds the limit of 10"):
            manager.resume(value=value)
        assert value.array.tolist() == [-1.0] * 3
        assert manager.resume(value=value, limits=Limits()).values == {"pair": (1, 2)}
    with CheckpointManager(run, random=False) as manager, pytest.raises(LimitError, match="exceeds the limit of 10"):
        manager.resume(value=value, limits=Limits(pickle_bytes=10))
    assert content(run) == before


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_not_damaged(run, monkeypatch):
    """Another process may save and prune meanwhile: the search begins again, and finds what is there by then."""
    deleted = []

    def verify(path):
        if not deleted:
            deleted.append(path)
            shutil.copytree(path, run / "copy")
            shutil.rmtree(path)
        return genuine(path)

    genuine = _find.verify
    monkeypatch.setattr(_find, "verify", verify)
    with CheckpointManager(run, random=False) as manager:
        resumed = manager.resume(value=Value())
    assert (resumed.step, resumed.passed_over) == (1, ())


def test_a_run_that_is_pruned_faster_than_it_is_read_says_so(run, monkeypatch):
    """The search does not go on for ever."""
    monkeypatch.setattr(_find, "_search", lambda directory: None)
    with pytest.raises(ValueError, match="deleted while they were read, 10 times in a row"):
        CheckpointManager(run).resume()


def test_a_checkpoint_that_goes_while_it_is_loaded_is_looked_for_again(run, monkeypatch):
    """What was deleted after it was verified is not an error: there is another one by then."""
    from statedict import _api

    genuine, gone = _api.load_state_dict, []

    def load(value, path, **options):
        if not gone:
            gone.append(path)
            shutil.rmtree(path.parent)
        return genuine(value, path, **options)

    monkeypatch.setattr(_api, "load_state_dict", load)
    value = Value()
    assert CheckpointManager(run, random=False).resume(value=value).step == 1
    assert value.array.tolist() == [1.0] * 3
