"""The checkpoints of a run are listed at every save, and each manifest is read once."""

import os
from dataclasses import replace
from unicodedata import normalize

import pytest
from tests.cost import calls
from tests.training.objects import Counter

from statedict import CheckpointManager
from statedict.formats import runs
from statedict.formats.runs._manifest import dump, read
from statedict.training import all_steps
from statedict.training.run_directory import DirectoryRun, _catalogue
from statedict.training.run_directory._catalogue import Catalogue


@pytest.fixture
def reads(monkeypatch):
    """The directories whose manifests are read, as they are; files are settled at once."""
    found, genuine = [], runs.read
    monkeypatch.setattr(_catalogue, "SETTLED", -1)
    monkeypatch.setattr(runs, "read", lambda path: (found.append(path.name), genuine(path))[1])
    return found


def test_a_save_reads_no_old_manifest_again(tmp_path, reads):
    """The newest is read for what can be shared with it, and the one just written to be listed: however many there are."""
    with CheckpointManager(tmp_path, keep=all_steps(), random=False, durable=False) as manager:
        for step in range(30):
            reads.clear()
            manager.save(step, epoch=step)
            assert len(reads) <= 3
        reads.clear()
        assert [saved.step for saved in manager.checkpoints] == list(range(30))
        assert reads == []


def test_a_manifest_that_changes_is_read_again(tmp_path, reads):
    """A manifest that changes, even in place and to the same size, is read again; deleted ones are no longer listed."""
    with CheckpointManager(tmp_path, random=False) as manager:
        for step in (1, 2):
            manager.save(step, {"loss": 5})
    catalogue = Catalogue(tmp_path)
    assert [saved.metrics["loss"] for saved in catalogue.saved()] == [5, 5]
    path = tmp_path / "step-0000000002"
    changed = dump(replace(read(path), metrics={"loss": 7}))
    with (path / "manifest.json").open("r+b") as file:
        file.write(changed)
    os.utime(path / "manifest.json", ns=(1, 1))
    assert [saved.metrics["loss"] for saved in catalogue.saved()] == [5, 7]
    path.rename(tmp_path / "elsewhere")
    assert [saved.step for saved in catalogue.saved()] == [1]


def test_a_manifest_that_has_just_changed_is_not_trusted_to_stay(tmp_path, reads, monkeypatch):
    """The clock of a file system is coarse: another change may leave no other time."""
    monkeypatch.setattr(_catalogue, "SETTLED", 1 << 62)
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1)
    catalogue = Catalogue(tmp_path)
    for _ in range(2):
        reads.clear()
        catalogue.saved()
        assert reads == ["step-0000000001"]


def test_the_later_of_two_times_says_when_a_manifest_has_changed(tmp_path, reads):
    """One of them is the time of creation on Windows, which a change leaves as it is."""
    with CheckpointManager(tmp_path, random=False) as manager:
        manager.save(1)
    os.utime(tmp_path / "step-0000000001" / "manifest.json", ns=(1 << 62, 1 << 62))
    catalogue = Catalogue(tmp_path)
    for _ in range(2):
        reads.clear()
        catalogue.saved()
        assert reads == ["step-0000000001"]


def test_names_may_be_listed_with_decomposed_letters(tmp_path, monkeypatch):
    """macOS lists names of some disks so. The manifest has the names as they were written, and they are found."""
    walk = os.walk

    def decomposed(*arguments, **options):
        for folder, folders, names in walk(*arguments, **options):
            yield folder, folders, [normalize("NFD", name) for name in names]

    monkeypatch.setattr(os, "walk", decomposed)
    state = Counter()
    with CheckpointManager(tmp_path, random=False, durable=False) as manager:
        manager.save(1, modèle=state)
        assert manager.resume(modèle=state).step == 1


def test_a_directory_without_a_manifest_is_not_listed(tmp_path):
    """Only directories with a manifest are listed: no file with the name of a checkpoint, no run that does not exist."""
    (tmp_path / "step-0000000001").mkdir()
    (tmp_path / "step-0000000002").write_bytes(b"")
    assert Catalogue(tmp_path).saved() == []
    assert Catalogue(tmp_path / "none").saved() == Catalogue(tmp_path / "step-0000000002").saved() == []


@pytest.mark.only_on("linux")  # a simulated system makes calls of its own
def test_a_save_of_thousands_of_checkpoints_costs_what_listing_them_does(tmp_path, reads):
    """Twice as many old checkpoints cost at most some thirty calls for each."""
    with CheckpointManager(tmp_path, keep=all_steps(), random=False, durable=False) as manager:
        costs = []
        for first in (0, 60):
            for step in range(first, first + 60):
                manager.save(step)
            costs.append(calls(lambda: manager.save(999)))
    assert costs[1] - costs[0] < 60 * 30


def test_a_replaced_checkpoint_is_gone_before_its_files_are_deleted(tmp_path):
    """A reader that was reading it must not take it for a damaged checkpoint of its step."""
    run, old = DirectoryRun(tmp_path), tmp_path / ".old-step-0000000001-0f502a7d"
    old.mkdir()
    assert run.has(old)
    (tmp_path / "step-0000000001").mkdir()
    assert not run.has(old)
    assert run.has(tmp_path / "step-0000000001")
