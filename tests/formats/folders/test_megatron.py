"""Checkpoints of Megatron-core and Megatron-LM."""

from __future__ import annotations

import json
import shutil

import pytest

import statedict
from statedict.errors import FormatError, RootError, UnknownFormatError
from statedict.state import library, materialize, raw_values

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed.checkpoint")

from tests.formats.folders import megatron  # noqa: E402  # needs torch


def read(leaf):
    [tensor] = materialize([leaf], library("torch"))
    return tensor


def assert_same(leaves, tensors):
    """Each leaf is the tensor of its name."""
    leaves = raw_values(leaves)
    assert set(leaves) == set(tensors)
    for name, tensor in tensors.items():
        assert leaves[name].spec.shape == tensor.shape
        assert torch.equal(read(leaves[name]), tensor)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run folder with one step, and the model and optimizer state."""
    values, whole, state = megatron.training()
    run = tmp_path_factory.mktemp("run")
    megatron.save(run / "iter_0000010", values, megatron.COMMON)
    (run / "latest_checkpointed_iteration.txt").write_text("10")
    return run, whole, state


def test_a_folder_is_one_tree(saved):
    """The model, the optimizer by names of parameters, and what `common.pt` has are one tree."""
    run, whole, state = saved
    with statedict.open(run) as checkpoint:
        tree = checkpoint.object
        assert (checkpoint.format, checkpoint.producer) == ("megatron", "Megatron-core")
        assert list(checkpoint.roots) == ["model", "optimizer"]
        assert_same(tree["model"], whole)
        assert list(tree["optimizer"]["state"]) == [*state]
        for name, entry in state.items():
            assert_same(tree["optimizer"]["state"][name], entry)
        assert tree["optimizer"]["param_groups"] == megatron.COMMON["optimizer"]["optimizer"]["param_groups"]
        assert tree["rng_state"] == {"0.0": [{"random_rng_state": 0}], "0.1": [{"random_rng_state": 1}]}
        assert tree["extra_state"] == {"decoder.layers.mlp.linear_fc1._extra_state": {"0": None, "1": None}}
        assert (tree["iteration"], tree["opt_param_scheduler"]) == (10, {"num_steps": 10})
        assert [finding.level for finding in checkpoint.verify()] == ["note"]
        assert "iter_0000010 is the only checkpoint" in checkpoint.notes[0]


def test_tensors_that_were_stored_flat_have_their_own_shape(tmp_path):
    """Megatron-core before 0.16 stored ranges of the flat parts of a tensor; they are read in the tensor's shape, lazily."""
    values, whole, _ = megatron.training()
    name = "decoder.layers.mlp.linear_fc1.weight"
    key = f"optimizer.state.exp_avg.{name}"
    tensor = torch.arange(48.0).reshape(2, 6, 4)
    values[key] = megatron.flattened(tensor, 1, tensor_parallel=2, data_parallel=5)
    megatron.save(tmp_path / "saved", values, {}, original={key: (2, 6, 4)})
    with statedict.open(tmp_path / "saved") as checkpoint:
        leaf = checkpoint.object["optimizer"]["state"][name]["exp_avg"]
        assert leaf.spec.shape == (2, 6, 4)
        assert torch.equal(read(leaf), tensor)
        assert_same(checkpoint.object["model"], whole)
        assert checkpoint.verify() == []
        assert f"{megatron.MODULE}.MCoreMetadata" in [named.path for named in checkpoint.globals]
        assert checkpoint.dangerous == []


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 24), (1 << 40, 6, 4), (4, 3, 8)])
def test_a_wrong_original_shape_is_refused(tmp_path, shape):
    """The original shape of a flat tensor must agree with the stored one."""
    key = "optimizer.state.exp_avg.w"
    values = {key: megatron.flattened(torch.zeros(2, 6, 4), 1, tensor_parallel=2, data_parallel=2)}
    megatron.save(tmp_path / "saved", values, {}, original={key: shape})
    with pytest.raises(FormatError, match=rf"{key}: its shape \[2, 2, 1, 12\] is not that of a tensor of"):
        statedict.open(tmp_path / "saved")


def test_chained_optimizers_are_one(tmp_path):
    """The states of chained optimizers are joined by names; the groups are those of all of them."""
    values = {
        "a.weight": torch.ones(2),
        "chained_0.optimizer.state.exp_avg.a.weight": torch.ones(2),
        "chained_1.optimizer.state.exp_avg.b.weight": torch.zeros(2),
    }
    groups = [{"lr": 1}], [{"lr": 2}]
    common = {
        "optimizer": {0: {"optimizer": {"param_groups": groups[0]}}, 1: {"optimizer": {"param_groups": groups[1]}}}
    }
    with statedict.open(megatron.save(tmp_path / "saved", values, common)) as checkpoint:
        assert list(checkpoint.object["optimizer"]["state"]) == ["a.weight", "b.weight"]
        assert checkpoint.object["optimizer"]["param_groups"] == [*groups[0], *groups[1]]


def test_buffers_of_ranks_are_noted(tmp_path):
    """Flat buffers of the distributed optimizer (`dp_reshardable`) are read as they are; a note says what they are."""
    key = "optimizer.distributed.dp_group_idx_0.gbuf_idx_0.dtype_(torch.bfloat16, torch.bfloat16).bucket_idx_0.exp_avg"
    groups = "optimizer.distributed.dp_group_idx_0.optimizer/shard_0_1"
    flat = torch.arange(10.0)
    values = {"w": torch.ones(3), key: megatron.split(flat, 0, 5, layers=False), groups: {"param_groups": [{"lr": 1}]}}
    common = {"optimizer": {"param_state_sharding_type": "dp_reshardable"}}
    with statedict.open(megatron.save(tmp_path / "saved", values, common)) as checkpoint:
        optimizer = checkpoint.object["optimizer"]
        assert torch.equal(read(optimizer["distributed"][key.removeprefix("optimizer.distributed.")]), flat)
        assert optimizer["distributed"]["dp_group_idx_0.optimizer"] == {"param_groups": [{"lr": 1}]}
        assert optimizer["param_state_sharding_type"] == "dp_reshardable"
        assert "do not say which elements belong to which parameter" in checkpoint.notes[0]
        assert list(checkpoint.state_dict()) == ["w"]


@pytest.mark.parametrize("gone", ["common.pt", "metadata.json"])
def test_a_missing_file_beside_the_tensors_is_named(saved, tmp_path, gone):
    """Without `common.pt` or `metadata.json` the tensors load; `verify` names a missing `common.pt`."""
    run, whole, _ = saved
    folder = shutil.copytree(run / "iter_0000010", tmp_path / "saved")
    (folder / gone).unlink()
    with statedict.open(folder) as checkpoint:
        assert checkpoint.format == "megatron"
        assert_same(checkpoint.object["model"], whole)
        wheres = [finding.where for finding in checkpoint.verify() if finding.level == "error"]
        assert wheres == (["common.pt"] if gone == "common.pt" else [])


def test_missing_metadata_is_named(saved, tmp_path):
    """Without `.metadata` nothing says what the other files contain."""
    run, _, _ = saved
    folder = shutil.copytree(run / "iter_0000010", tmp_path / "saved")
    (folder / ".metadata").unlink()
    with pytest.raises(FormatError, match=r"\.metadata, which describes the tensors, is missing"):
        statedict.open(folder)


def test_a_damaged_description_that_is_not_needed_is_not_read(saved, tmp_path):
    """`metadata.json` matters only if one of the other files is missing."""
    run, whole, _ = saved
    folder = shutil.copytree(run / "iter_0000010", tmp_path / "saved")
    (folder / "metadata.json").write_bytes(b"{")
    with statedict.open(folder) as checkpoint:
        assert_same(checkpoint.object["model"], whole)


def test_another_backend_is_named(saved, tmp_path):
    """A folder in Megatron's older format `zarr` is refused by its name."""
    run, _, _ = saved
    folder = tmp_path / "saved"
    folder.mkdir()
    shutil.copy(run / "iter_0000010" / "common.pt", folder)
    (folder / "metadata.json").write_text(json.dumps({**megatron.CONFIG, "sharded_backend": "zarr"}))
    with pytest.raises(UnknownFormatError, match=r"in the format 'zarr'; only 'torch_dist' can be read"):
        statedict.open(folder)


def test_the_metadata_of_another_program_is_not_megatrons(saved, tmp_path):
    """A distributed checkpoint beside another program's `metadata.json` is read as any other."""
    run, _, _ = saved
    folder = shutil.copytree(run / "iter_0000010", tmp_path / "saved")
    (folder / "common.pt").unlink()
    (folder / "metadata.json").write_text('{"author": "somebody"}')
    with statedict.open(folder) as checkpoint:
        assert checkpoint.format == "distributed"


def test_two_values_of_one_name_are_refused(tmp_path):
    """Two objects of one place contradict each other."""
    values = {"w": torch.ones(1), "rng_state/shard_0_1": 1, "rng_state/shard_0.0_1.1": 2}
    with pytest.raises(FormatError, match="its path rng_state is also the path of another value"):
        statedict.open(megatron.save(tmp_path / "saved", values, {}))


def test_a_value_that_common_has_too_is_noted(tmp_path):
    """If two values have the same place, the one beside the tensors is used."""
    common = {"model": 3, "step": 1, "optimizer": {"distributed": 5}}
    with statedict.open(megatron.save(tmp_path / "saved", {"w": torch.ones(1)}, common)) as checkpoint:
        assert list(checkpoint.object["model"]) == ["w"]
        assert checkpoint.object["step"] == 1
        assert checkpoint.object["optimizer"] == {"distributed": 5}
        assert checkpoint.notes == ["common.pt: model was not used: the tensors have a value of the same name"]


# Megatron-LM's older format: a file for each rank


def written(folder, seed=0):
    """The files of one rank."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = {"decoder.layers.0.mlp.weight": torch.randn(3, 2), "output_layer.weight": torch.randn(4, 2)}
    torch.save({"model": model, "iteration": 10, "checkpoint_version": 3.0}, folder / "model_optim_rng.pt")
    buffers = {0: {(torch.float32, torch.float32): {"param": torch.randn(14)}}}
    torch.save(buffers, folder / "distrib_optim.pt")
    return model


@pytest.mark.parametrize("name", ["mp_rank_00", "mp_rank_00_000", "mp_rank_00_000_000"])
def test_the_folder_of_one_rank_is_the_checkpoint(tmp_path, name):
    """With one model-parallel rank, its content is that of the step."""
    model = written(tmp_path / "iter_0000010" / name)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    for path in (tmp_path, tmp_path / "iter_0000010", tmp_path / "iter_0000010" / name):
        with statedict.open(path) as checkpoint:
            assert list(checkpoint.object) == ["model", "iteration", "checkpoint_version", "distrib_optim"]
            assert_same(checkpoint.state_dict(), model)


def test_several_ranks_are_roots_and_are_not_joined(tmp_path):
    """Tensor-parallel ranks are roots: the files do not say how to join them, as a note says."""
    models = [written(tmp_path / "iter_0000010" / f"mp_rank_{n:02}", n) for n in range(2)]
    with statedict.open(tmp_path / "iter_0000010") as checkpoint:
        assert list(checkpoint.roots) == ["mp_rank_00/model", "mp_rank_01/model"]
        for n, model in enumerate(models):
            assert_same(checkpoint.state_dict(f"mp_rank_{n:02}/model"), model)
        with pytest.raises(RootError, match="several state dicts"):
            checkpoint.state_dict()
        assert "along which axis they are divided" in checkpoint.notes[0]


def test_a_rank_without_its_file_is_named(tmp_path):
    """Other ranks load."""
    written(tmp_path / "step" / "mp_rank_00")
    written(tmp_path / "step" / "mp_rank_01")
    (tmp_path / "step" / "mp_rank_01" / "model_optim_rng.pt").unlink()
    with statedict.open(tmp_path / "step") as checkpoint:
        assert list(checkpoint.roots) == ["mp_rank_00/model"]
        [error] = [finding for finding in checkpoint.verify() if finding.level == "error"]
        assert error.where == "mp_rank_01"
        assert "should contain model_optim_rng.pt" in error.text


def test_a_release_without_a_number_is_the_newest(tmp_path):
    """Megatron marks converted weights as `release`."""
    model = written(tmp_path / "release" / "mp_rank_00")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("release")
    with statedict.open(tmp_path) as checkpoint:
        assert_same(checkpoint.state_dict(), model)
        assert checkpoint.notes == [f"release is the only checkpoint in {tmp_path}"]
