"""Folders of accelerate and Lightning with FSDP, made as they make them (accelerate 1.15, Lightning 2.6)."""

from __future__ import annotations

import warnings

import pytest

import statedict
from statedict.errors import FormatError, RootError

torch = pytest.importorskip("torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")
state_dict = pytest.importorskip("torch.distributed.checkpoint.state_dict")


def built(seed):
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=seed + 0.5)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def shards(folder, tree):
    with warnings.catch_warnings(action="ignore"):  # of a process group that is not there
        dcp.save(tree, checkpoint_id=str(folder))


def assert_loads(folder, model, optimizer):
    other, target = built(9)
    statedict.load_state_dict(other, folder)
    statedict.load_state_dict(target, folder, model=other)
    assert all(map(torch.equal, other.state_dict().values(), model.state_dict().values()))
    assert target.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for key, entry in optimizer.state_dict()["state"].items():
        assert all(torch.equal(target.state_dict()["state"][key][name], value) for name, value in entry.items())


def of_accelerate(folder, model, optimizer):
    """A folder of `save_state` with `SHARDED_STATE_DICT`."""
    shards(folder / "pytorch_model_fsdp_0", {"model": model.state_dict()})
    shards(folder / "optimizer_0", {"optimizer": state_dict.get_optimizer_state_dict(model, optimizer)})
    torch.save({"last_epoch": 3}, folder / "scheduler.bin")
    torch.save({"step": 3}, folder / "random_states_0.pkl")
    return folder


def test_sharded_folders_of_accelerate_are_roots(tmp_path):
    """The folders of the model and the optimizer are roots beside those of the files."""
    model, optimizer = built(0)
    folder = of_accelerate(tmp_path / "checkpoint-10", model, optimizer)
    with statedict.open(folder) as checkpoint:
        assert set(checkpoint.object) == {"model", "optimizer", "scheduler", "rng"}
        assert set(checkpoint.roots) == {"model", "optimizer"}
        assert checkpoint.verify() == []
    assert_loads(folder, model, optimizer)
    assert_loads(tmp_path, model, optimizer)


def test_further_models_and_optimizers_have_numbers(tmp_path):
    """The second model and optimizer are `model_1` and `optimizer_1`."""
    model, optimizer = built(0)
    of_accelerate(tmp_path, model, optimizer)
    shards(tmp_path / "pytorch_model_fsdp_1", {"model": model.state_dict()})
    shards(tmp_path / "optimizer_1", {"optimizer": optimizer.state_dict()})
    with statedict.open(tmp_path) as checkpoint:
        assert set(checkpoint.roots) == {"model", "model_1", "optimizer", "optimizer_1"}


def test_folders_alone_are_a_checkpoint(tmp_path):
    """Without files beside them, such as the scheduler's, the folders are enough."""
    model, optimizer = built(0)
    shards(tmp_path / "pytorch_model_fsdp_0", {"model": model.state_dict()})
    shards(tmp_path / "optimizer_0", {"optimizer": optimizer.state_dict()})
    assert_loads(tmp_path, model, optimizer)


def test_a_full_state_is_the_model(tmp_path):
    """With `FULL_STATE_DICT`, the model is in `pytorch_model_fsdp.bin`, and the optimizer in `optimizer.bin`."""
    model, optimizer = built(0)
    torch.save(model.state_dict(), tmp_path / "pytorch_model_fsdp.bin")
    torch.save(state_dict.get_optimizer_state_dict(model, optimizer), tmp_path / "optimizer.bin")
    torch.save({"step": 3}, tmp_path / "random_states_0.pkl")
    assert_loads(tmp_path, model, optimizer)


def test_flat_parameters_of_ranks_are_named(tmp_path):
    """With `LOCAL_STATE_DICT`, files of ranks have flat parameters: they are named, and the optimizer loads."""
    model, optimizer = built(0)
    of_accelerate(tmp_path, model, optimizer)
    for file in (tmp_path / "pytorch_model_fsdp_0").iterdir():
        file.unlink()
    (tmp_path / "pytorch_model_fsdp_0").rmdir()
    for rank in range(2):
        torch.save({"_flat_param": torch.ones(4)}, tmp_path / f"pytorch_model_fsdp_rank{rank}.bin")
    with statedict.open(tmp_path) as checkpoint:
        assert list(checkpoint.roots) == ["optimizer"]
        assert "contain flat parameters" in str(checkpoint.unopened["model"])
        [error] = [finding for finding in checkpoint.verify() if finding.level == "error"]
        assert (error.where, "SHARDED_STATE_DICT" in error.text) == ("model", True)
    with pytest.raises(RootError, match=r"'model' cannot be read: .*flat parameters"):
        statedict.load_state_dict(model, tmp_path)


def test_the_file_of_the_only_rank_is_opened(tmp_path):
    """A model that one process saved by itself (`use_dcp=False`) is whole."""
    model, optimizer = built(0)
    torch.save(model.state_dict(), tmp_path / "pytorch_model_fsdp_0_rank0.bin")
    torch.save(state_dict.get_optimizer_state_dict(model, optimizer), tmp_path / "optimizer_0_rank0.bin")
    assert_loads(tmp_path, model, optimizer)


def of_lightning(folder, model, optimizer, name):
    """A sharded checkpoint of a Trainer's strategy."""
    named = state_dict.get_optimizer_state_dict(model, optimizer)
    shards(folder, {name: model.state_dict(), "optimizer_0": named})
    meta = {"epoch": 2, "global_step": 7, "lr_schedulers": [{"last_epoch": 2}], "loops": {"fit_loop": {}}}
    torch.save(meta, folder / "meta.pt")
    return folder


@pytest.mark.parametrize("name", ["model", "state_dict"], ids=["FSDP", "ModelParallel"])
def test_a_sharded_checkpoint_of_lightning_is_one_tree(tmp_path, name):
    """The model and the optimizer, and what `meta.pt` has, are one tree."""
    model, optimizer = built(0)
    folder = of_lightning(tmp_path / "epoch=2-step=7.ckpt", model, optimizer, name)
    with statedict.open(folder) as checkpoint:
        assert (checkpoint.format, checkpoint.producer) == ("lightning", "Lightning")
        assert list(checkpoint.object) == ["model", "optimizer", "epoch", "global_step", "lr_schedulers", "loops"]
        assert checkpoint.object["global_step"] == 7
        assert checkpoint.verify() == []
    assert_loads(folder, model, optimizer)
    assert_loads(tmp_path, model, optimizer)


def test_the_keys_of_fabric_are_kept(tmp_path):
    """Fabric writes the keys of the user's own state."""
    model, optimizer = built(0)
    named = state_dict.get_optimizer_state_dict(model, optimizer)
    shards(tmp_path, {"net": model.state_dict(), "opt": named})
    torch.save({"iteration": 5, "opt": 1}, tmp_path / "meta.pt")
    with statedict.open(tmp_path) as checkpoint:
        assert list(checkpoint.object) == ["net", "opt", "iteration"]
        assert checkpoint.notes == ["meta.pt: opt was not used: the tensors have a value of the same name"]
    assert_loads(tmp_path, model, optimizer)


def test_a_damaged_file_beside_the_tensors_is_named(tmp_path):
    """The model loads although `meta.pt` is damaged."""
    model, optimizer = built(0)
    of_lightning(tmp_path, model, optimizer, "model")
    (tmp_path / "meta.pt").write_bytes(b"nothing")
    with statedict.open(tmp_path) as checkpoint:
        assert [finding.where for finding in checkpoint.verify()] == ["meta.pt"]
    assert_loads(tmp_path, model, optimizer)


def test_metadata_that_is_damaged_is_an_error(tmp_path):
    """Without its metadata, the folder has no tensors: opening it raises the error."""
    model, optimizer = built(0)
    of_lightning(tmp_path, model, optimizer, "model")
    (tmp_path / ".metadata").write_bytes(b"\x80\x04N.")
    with pytest.raises(FormatError, match="expected a Metadata"):
        statedict.open(tmp_path)
