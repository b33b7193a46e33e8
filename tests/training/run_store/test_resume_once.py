"""What a resume from a store fetches, and what it changes if that is damaged."""

import pytest

import statedict
from statedict import CheckpointManager
from statedict.errors import FormatError
from statedict.files import open_bucket

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytest.importorskip("fsspec")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
URL = "s3://bucket/run"


def job(value, size=700):
    """A model with an optimizer that has a state, of several megabytes, and something else."""
    model = torch.nn.Linear(size, size)
    torch.nn.init.constant_(model.weight, value)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(size)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


def saved(*steps):
    with CheckpointManager(URL, random=False) as manager:
        for step in steps:
            manager.save(step, **job(step), position=(step, 0))
    return list(manager)


def damage(step, name):
    """Change a byte in the middle of a file, or in a name that it contains."""
    bucket = open_bucket(URL)
    (key,) = [entry.key for entry in bucket.list(f"step-{step:010}-") if entry.key.endswith(name)]
    content = bytearray(bucket.read(key, 0, bucket.stat(key).nbytes))
    found = content.find(b"position")
    content[len(content) // 2 if found < 0 else found] ^= 1
    bucket.put(key, bytes(content))


def values_of(objects):
    return {"model": statedict.snapshot(objects["model"]), "optimizer": objects["optimizer"].state_dict()["state"]}


def same(one, other):
    return all(torch.equal(one["model"][name], other["model"][name]) for name in ("weight", "bias")) and all(
        torch.equal(one["optimizer"][n][name], value)
        for n, state in other["optimizer"].items()
        for name, value in state.items()
    )


def test_each_byte_is_fetched_once(s3):
    """A resume fetches hardly more than the bytes of the checkpoint, all of which it verifies."""
    saved(1)
    nbytes = CheckpointManager(URL).latest.nbytes
    target = job(9)
    s3.sent = 0
    resumed = CheckpointManager(URL, random=False).resume(**target)
    assert resumed.values["position"] == (1, 0)
    assert nbytes < s3.sent < 1.1 * nbytes


def test_files_of_other_objects_are_verified_too(s3):
    """A checkpoint is passed over if any of its files is damaged, also one that nobody wants."""
    saved(1, 2)
    damage(2, "optimizer.pt")
    resumed = CheckpointManager(URL, random=False).resume(model=job(9)["model"])
    assert resumed.step == 1
    assert [skipped.step for skipped in resumed.passed_over] == [2]


@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt", "values.pt"])
def test_a_damaged_checkpoint_is_passed_over_for_the_next_older_one(s3, name):
    """Damage that is found while objects are loaded has the same result as damage found before."""
    saved(1, 2)
    damage(2, name)
    target = job(9)
    resumed = CheckpointManager(URL, random=False).resume(**target)
    assert resumed.step == 1
    assert [skipped.step for skipped in resumed.passed_over] == [2]
    assert float(target["model"].weight.detach().mean().round()) == 1


@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt"])
def test_if_all_are_damaged_nothing_changes(s3, name):
    """Objects that were loaded before the damage was found get their states back."""
    saved(1)
    damage(1, name)
    target = job(9)
    before = {
        "model": statedict.snapshot(target["model"]),
        "optimizer": statedict.snapshot(target["optimizer"])["state"],
    }
    with pytest.raises(FormatError, match="all checkpoints are damaged"):
        CheckpointManager(URL, random=False).resume(**target)
    assert same(before, values_of(target))
