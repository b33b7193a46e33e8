"""A checkpoint that cannot be read at the moment is not damaged: `resume` neither renames nor skips it."""

import errno
import shutil
import sys

import pytest
from tests.training.objects import Value, failing, needs_raising_profiles

from statedict import CheckpointManager
from statedict.errors import LimitError
from statedict.formats import Limits
from statedict.formats.runs._manifest import NewerVersionError, dump, read
from statedict.training.resuming import _find, _retry

REFUSED = [errno.EACCES, errno.ESTALE, errno.EMFILE, errno.EIO, None]
MODULES = {"posix", "_io", "io", "mmap", "fcntl"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two checkpoints, with retries that do not wait."""
    monkeypatch.setattr(_retry, "PAUSES", (0, 0))
    with CheckpointManager(tmp_path / "run", random=False) as manager:
        for step in (1, 2):
            manager.save(step, value=Value(step), pair=(1, step))
        manager.resume(value=Value())
    return tmp_path / "run"


def content(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*"))


def is_a_system_call(function):
    return getattr(function, "__module__", None) in MODULES and function.__name__ != "close"


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


@needs_raising_profiles
@pytest.mark.parametrize("number", REFUSED, ids=lambda number: errno.errorcode.get(number, "MemoryError"))
@pytest.mark.parametrize("often", [1, 1000], ids=["once", "from then on"])
def test_a_fault_at_each_call_of_resume_renames_nothing(run, number, often):
    """If a system call fails, once or from then on, `resume` loads the newest checkpoint or raises, and never loads an older
    one. The directory does not change, and if it raises, neither does the object."""
    before, first = content(run), 1
    while True:
        watch, seen = failing(is_a_system_call, first, first + often - 1, number)
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


def test_a_temporary_error_is_retried(run, monkeypatch):
    """A checkpoint that can be read at the third attempt is used."""
    tries = []

    def verify(of, path, **options):
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.ESTALE, "stale")
        return genuine(of, path)

    genuine = _find.verify
    monkeypatch.setattr(_find, "verify", verify)
    with CheckpointManager(run, random=False) as manager:
        assert manager.resume(value=Value()).step == 2
    assert len(tries) == 3


def test_an_error_says_that_the_checkpoint_may_be_undamaged(run, monkeypatch):
    """The error of the system is raised, with a note that says what to do."""

    def refuse(of, path, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(_find, "verify", refuse)
    with (
        CheckpointManager(run, random=False) as manager,
        pytest.raises(PermissionError, match="step 2 cannot be read at the moment, so it may be undamaged") as caught,
    ):
        manager.resume(value=Value())
    assert "move" in caught.value.__notes__[0]


def test_the_list_of_checkpoints_is_complete_or_an_error(run, monkeypatch):
    """`checkpoints` raises if a manifest cannot be read, so that no retention policy is applied to the others alone."""
    from statedict.training.run_directory import _layout

    def refuse(path):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(_layout, "describe", refuse)
    manager = CheckpointManager(run)
    with pytest.raises(OSError, match="I/O error"):
        _ = manager.checkpoints


def test_a_checkpoint_of_a_newer_version_is_not_damaged(run, monkeypatch):
    """`resume` says that a newer version is needed, and does not use an older checkpoint."""
    from statedict.formats.runs import _manifest

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


def test_a_checkpoint_that_exceeds_the_limits_is_not_damaged(run):
    """Exceeding the `limits` of the manager or of one `resume` raises LimitError; nothing is renamed."""
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
    """If another process deletes the checkpoint meanwhile, the search starts again and finds the next one."""
    deleted = []

    def verify(of, path, **options):
        if not deleted:
            deleted.append(path)
            shutil.copytree(path, run / "copy")
            shutil.rmtree(path)
        return genuine(of, path)

    genuine = _find.verify
    monkeypatch.setattr(_find, "verify", verify)
    with CheckpointManager(run, random=False) as manager:
        resumed = manager.resume(value=Value())
    assert (resumed.step, resumed.passed_over) == (1, ())


def test_the_search_for_a_checkpoint_ends(run, monkeypatch):
    """If checkpoints are deleted faster than they are read, `resume` raises after ten searches."""
    monkeypatch.setattr(_find, "_search", lambda directory, **options: None)
    with pytest.raises(ValueError, match="deleted or replaced while they were read, 10 times in a row"):
        CheckpointManager(run).resume()


def test_a_checkpoint_that_is_deleted_while_it_is_loaded_is_replaced_by_another(run, monkeypatch):
    """If a checkpoint is deleted after it was verified, another one is loaded."""
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
