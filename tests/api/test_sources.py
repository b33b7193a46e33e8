"""`match`, `diff` and `merge` on whatever holds a state: models, mappings, open and closed files of each format."""

import gc
import os

import pytest
import torch
from torch import nn

import statedict
from statedict.errors import CollisionError, LimitError, MergeError, NotAStateError, RootError


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture(params=["pt", "legacy", "safetensors", "npz"])
def files(request, tmp_path):
    """Three models, and a file of each in one format."""
    models = [net(seed) for seed in range(3)]
    paths = [tmp_path / f"{n}.{'pt' if request.param == 'legacy' else request.param}" for n in range(3)]
    for model, path in zip(models, paths):
        if request.param == "legacy":
            torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
        else:
            statedict.save(model, path)
    return models, paths


def mean(models, name):
    return torch.stack([model.state_dict()[name] for model in models]).mean(0)


def test_an_average_of_files_is_read_when_it_is_used(files, tmp_path):
    """Files stay open as long as the merged state needs them: it is loaded, saved and read later on."""
    models, paths = files
    average = statedict.merge(paths)
    model = net(9)
    statedict.load_state_dict(model, average)
    statedict.save(average, tmp_path / "average.pt")
    saved = torch.load(tmp_path / "average.pt", weights_only=True)
    for name in ("0.weight", "2.bias", "1.running_var"):
        assert torch.allclose(model.state_dict()[name], mean(models, name))
        assert torch.equal(model.state_dict()[name], average[name])
        assert torch.equal(model.state_dict()[name], saved[name])
    assert saved["1.num_batches_tracked"].dtype == torch.int64


def test_files_are_let_go(files):
    """When the merged state is gone, so are the open files."""
    _, paths = files
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    merged = statedict.merge(paths)
    del merged
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_difference_of_files(files):
    """Differences are those of the tensors, whichever side is a file, a model or a mapping."""
    models, paths = files
    for one in (paths[0], models[0], models[0].state_dict()):
        for other in (paths[1], models[1]):
            found = statedict.diff(one, other)
            assert set(found.changed) == {"0.weight", "0.bias", "2.weight", "2.bias"}
            expected = (models[1][0].weight - models[0][0].weight).abs().max().item()
            assert found.changed["0.weight"].max_abs == pytest.approx(expected)
    assert not statedict.diff(paths[2], models[2])


def test_the_other_ways_to_merge(files):
    """Task arithmetic, slerp and union from files, by hand with PyTorch."""
    models, paths = files
    base, one, other = (model.state_dict()["0.weight"] for model in models)
    moved = statedict.merge(paths[1:], "task_arithmetic", base=paths[0], weights=[0.5, 2.0])["0.weight"]
    assert torch.allclose(moved, base + 0.5 * (one - base) + 2.0 * (other - base), atol=1e-6)
    arc = statedict.merge(paths[:2], "slerp", weights=0.0)["0.weight"]
    assert torch.allclose(arc, base)
    heads = statedict.StateDict(models[1].state_dict()).select("2")
    trunk = statedict.StateDict(models[0].state_dict()).drop("2")
    assert statedict.load_state_dict(net(9), statedict.merge([trunk, heads], "union")).ok
    with pytest.raises(CollisionError):
        statedict.merge(paths[:2], "union")


def test_models_that_differ_do_not_merge(files):
    """Names that only one has are told."""
    _, paths = files
    with pytest.raises(MergeError, match=r"sources\[1\] does not have .*1\.running_mean") as caught:
        statedict.merge([paths[0], {"0.weight": torch.ones(4, 3)}])
    assert "2.weight" in caught.value.names


def test_match_tells_the_names_and_changes_nothing(files):
    """The map brings a file's names to a model's; given as `rename` it loads strictly."""
    models, paths = files

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = net(5)

    mine = Mine()
    before = mine.backbone[0].weight.detach().clone()
    found = statedict.match(mine, paths[0])
    assert torch.equal(mine.backbone[0].weight, before)
    assert statedict.load_state_dict(mine, paths[0], rename=found.key_map).ok
    assert torch.equal(mine.backbone[0].weight, models[0][0].weight)
    assert statedict.load_state_dict(net(7), mine, rename=found.key_map.inverse).ok


def test_roots_in_match_diff_and_merge(tmp_path):
    """`root` chooses the state in each source that is a checkpoint."""
    paths = [tmp_path / f"{n}.pt" for n in range(2)]
    for seed, path in enumerate(paths):
        torch.save({"one": net(seed).state_dict(), "two": net(seed + 5).state_dict(), "epoch": 1}, path)
    for act in (lambda **given: statedict.merge(paths, **given), lambda **given: statedict.diff(*paths, **given)):
        with pytest.raises(RootError, match=r"Available: 'one', 'two'; choose one with root=$"):
            act()
    assert torch.allclose(statedict.merge(paths, root="two")["0.bias"], mean([net(5), net(6)], "0.bias"))
    assert statedict.diff(*paths, root="two").changed
    assert not statedict.match(net(), paths[0], root="one").key_map


def test_checkpoints_that_are_open_stay_open(tmp_path):
    """A Checkpoint that the caller opened is the caller's to close."""
    statedict.save(net(), tmp_path / "m.pt")
    with statedict.open(tmp_path / "m.pt") as checkpoint:
        merged = statedict.merge([checkpoint, checkpoint.state_dict()])
        statedict.load_state_dict(net(3), checkpoint)
        assert not statedict.diff(checkpoint, net())
        assert torch.equal(merged["0.weight"], net()[0].weight)
        assert torch.equal(checkpoint.state_dict()["0.weight"], net()[0].weight)


@pytest.mark.parametrize("act", [statedict.diff, statedict.match, lambda a, b: statedict.merge([a, b])])
def test_what_is_no_source(act):
    """Numbers and lists of tensors are not sources."""
    with pytest.raises(NotAStateError, match="A source is a path"):
        act(net(), [torch.ones(1)])


def test_a_file_that_costs_more_is_opened_with_other_limits(tmp_path):
    """The error says which limit is met and how to raise it; the Checkpoint is then a source as any."""
    path = tmp_path / "model.pt"
    statedict.save(net(), path)
    with pytest.raises(LimitError, match=r"statedict\.open\(path, limits=statedict\.Limits\(zip_members=…\)\)"):
        statedict.open(path, limits=statedict.Limits(zip_members=2))
    with statedict.open(path, limits=statedict.Limits(zip_members=50)) as checkpoint:
        assert not statedict.diff(checkpoint, net())


class Exported(nn.Linear):
    """A module that names the file it is exported to, and reads from it."""

    def __fspath__(self):
        return "exported.onnx"

    def read(self):
        raise AssertionError("a module is not read as a file")


def test_a_module_with_a_path_is_a_module():
    """A module that has `__fspath__` or `read` is the source itself, not the path of a file."""
    source, target = Exported(2, 2), nn.Linear(2, 2)
    statedict.load_state_dict(target, source)
    assert torch.equal(target.weight, source.weight)
    assert not statedict.diff(source, target)
