"""Directories of torch_checkpointing: the tensors of all ranks, joined; torch decides which part each rank has."""

from __future__ import annotations

import os
import pickle

import pytest
from tests.plugins.rank_directories import local, metadata, model, placements, written

import statedict
from statedict import formats
from statedict.errors import FormatError, PartError, UnknownFormatError
from statedict.state import Parts

torch = pytest.importorskip("torch")

PLACED = {
    "fsdp": ((3,), 0),
    "hsdp": ((2, 2), None, 0),
    "twice": ((2, 2), 0, 0),
    "grid": ((2, 2), 0, 1),
    "alone": ((1,), 0),
}


def items_of(folder):
    return pickle.loads((folder / "metadata.pkl").read_bytes())["metadata"]


def change(folder, edit):
    """Edit the metadata."""
    items = items_of(folder)
    edit(items)
    (folder / "metadata.pkl").write_bytes(metadata(items, 2))


def data(items, name="encoder.weight"):
    (group,) = items["model"]["nested_path_to_metadata"][f'["{name}"]']
    return group["sharding_metadata"]["data"]


@pytest.mark.parametrize("safetensors", [False, True], ids=["torch", "safetensors"])
@pytest.mark.parametrize("placed", PLACED.values(), ids=PLACED)
def test_tensors_are_joined_from_the_ranks(tmp_path, placed, safetensors):
    """Every item is a root; tensors are whole, whatever the mesh and the layout; other values are the first rank's."""
    mesh, *kinds = placed
    written(tmp_path, mesh, *kinds, safetensors=safetensors)
    found = statedict.load(tmp_path)
    assert set(found) == {"model", "optim", "step", "config"}
    assert all(torch.equal(found["model"][name], value) for name, value in model().items())
    state = found["optim"]["state"]
    assert all(torch.equal(state[index]["exp_avg"], value * 2) for index, value in enumerate(model().values()))
    assert (found["step"], found["config"]) == (17, {"lr": 0.1})
    with formats.open(tmp_path) as checkpoint:
        assert (checkpoint.format, checkpoint.producer) == ("torch-checkpointing", "torch_checkpointing")
        assert list(checkpoint.roots) == ["model", "optim"]
        assert [finding for finding in checkpoint.verify() if finding.level != "note"] == []


def test_it_is_converted_and_loaded_like_any_other(tmp_path):
    """The root of the model is the default; loading reads only what it needs."""
    written(tmp_path / "run", (2,), 0)
    with statedict.open(tmp_path / "run") as checkpoint:
        statedict.save(checkpoint.state_dict(), tmp_path / "model.safetensors")
    module = torch.nn.Linear(4, 7)
    statedict.load_state_dict(module, tmp_path / "run", rename="encoder.{name} -> {name}", include="encoder")
    assert torch.equal(module.weight, model()["encoder.weight"])
    assert torch.equal(statedict.load(tmp_path / "model.safetensors")["head.weight"], model()["head.weight"])


def test_a_missing_rank_is_named_and_the_rest_loads(tmp_path):
    """Tensors with a part in its file cannot be read; replicated ones and other items can."""
    written(tmp_path, (2,), 0)
    (tmp_path / "model_1.pt").unlink()
    with formats.open(tmp_path) as checkpoint:
        errors = {(f.where, f.text) for f in checkpoint.verify() if f.level == "error"}
        assert "model: model_1.pt, the file of rank 1, is missing" in checkpoint.notes
        assert ("model", "model_1.pt, the file of rank 1, is missing") in errors
        assert ("model/encoder.bias", "parts of this tensor are missing") in errors
        state = checkpoint.state_dict("model")
        assert state.select("steps").numpy()["steps"].tolist() == 5
        with pytest.raises(PartError, match=r"encoder\.weight"):
            dict(state.numpy())
        assert dict(checkpoint.state_dict("optim").numpy())


def test_a_replica_of_a_missing_rank_is_used(tmp_path):
    """If every part is also on another rank, nothing is missing but the file."""
    written(tmp_path, (2, 2), None, 0)
    (tmp_path / "model_1.pt").unlink()
    assert torch.equal(statedict.load(tmp_path)["model"]["encoder.weight"], model()["encoder.weight"])


def test_a_damaged_rank_is_named(tmp_path):
    """A file that cannot be read counts as missing, with the reason."""
    written(tmp_path, (2,), 0)
    os.truncate(tmp_path / "model_1.pt", 100)
    with formats.open(tmp_path) as checkpoint:
        (text, *_) = [f.text for f in checkpoint.verify() if f.where == "model"]
        assert text.startswith("model_1.pt, the file of rank 1, cannot be read: ")
        assert isinstance(checkpoint.object["model"]["encoder.weight"], Parts)


def test_changed_bytes_are_found(tmp_path):
    """`verify` checks the files of every rank."""
    written(tmp_path, (2,), 0)
    raw = bytearray((tmp_path / "model_1.pt").read_bytes())
    part = local(model()["encoder.bias"], (2,), placements(model()["encoder.bias"], 0), 1)
    raw[raw.index(part.numpy().tobytes())] ^= 1
    (tmp_path / "model_1.pt").write_bytes(raw)
    with formats.open(tmp_path) as checkpoint:
        (finding,) = [f for f in checkpoint.verify() if f.level == "error"]
        assert finding.where.startswith("model/model_1/data/")
        assert finding.text.startswith(str(tmp_path / "model_1.pt"))


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda items: data(items).update(global_shape=[8, 4]), r"expected float32 \[4, 4\], found float32 \[3, 4\]"),
        (lambda items: data(items).update(dtype="torch.float16"), "expected float16"),
        (lambda items: data(items).update(global_shape=[7]), "expected float32"),
        (lambda items: data(items).update(global_shape=[-7, 4]), "not a list of at most 64 non-negative integers"),
        (lambda items: data(items).update(global_shape=[7] * 65), "not a list of at most 64 non-negative integers"),
        (lambda items: data(items).update(placements=[]), "does not say where rank 0 is on the mesh"),
        (lambda items: data(items).update(placements=[{"type": "Partial"}]), "is not supported"),
        (lambda items: data(items).update(placements=[{"type": "Shard", "dim": 2}]), "is not supported"),
        (
            lambda items: data(items).update(placements=[{"type": "StridedShard", "dim": 0, "split_factor": 1 << 40}]),
            "divided into 1099511627776 chunks",
        ),
        (lambda items: data(items)["mesh_spec"].update(mesh_data=(0, 0)), "does not have 2 different ranks"),
        (lambda items: data(items)["mesh_spec"].update(mesh_shape=(1 << 62, 1 << 62)), "different ranks"),
        (lambda items: data(items)["mesh_spec"].update(mesh_data=(5, 6)), "does not say where rank 0 is"),
        (lambda items: data(items)["mesh_spec"].update(mesh_data=(1, 0)), "expected float32"),
        (lambda items: data(items).clear(), "global_shape in the metadata"),
        (
            lambda items: items["model"]["nested_path_to_metadata"].update({'["other"]': []}),
            None,
        ),
        (
            lambda items: items["model"]["nested_path_to_metadata"].update(
                {'["other"]': items["model"]["nested_path_to_metadata"]['["steps"]']}
            ),
            "the file does not contain it",
        ),
        (
            lambda items: items["model"]["nested_path_to_metadata"].update(
                {"[": items["model"]["nested_path_to_metadata"]['["steps"]']}
            ),
            "not valid JSON",
        ),
    ],
)  # fmt: skip
def test_metadata_that_contradicts_the_files_is_refused(tmp_path, edit, problem):
    """The item is left out, and the error names the tensor; other items load."""
    written(tmp_path, (2,), 0)
    change(tmp_path, edit)
    with formats.open(tmp_path) as checkpoint:
        assert "optim" in checkpoint.roots
        if problem is None:
            assert "model" in checkpoint.roots
        else:
            with pytest.raises(FormatError, match=problem):
                raise checkpoint.unopened["model"]
            assert any(f.where == "model" and f.level == "error" for f in checkpoint.verify())


def test_parts_that_overlap_are_refused(tmp_path):
    """Boxes that ranks list themselves are compared."""
    written(tmp_path, (2,), 0)
    groups = []
    for rank, (at, size) in enumerate(((0, 4), (3, 3))):
        listed = {"global_offsets": ((at, 0),), "local_offsets": ((0, 0),), "local_sizes": ((size, 4),)}
        packed = {"type": "default_tensor_v1", "data": {"global_shape": (7, 4), "dtype": "torch.float32", **listed}}
        groups.append({"sharding_metadata": packed, "ranks": (rank,)})
    path = '["encoder.weight"]'
    change(tmp_path, lambda items: items["model"]["nested_path_to_metadata"].update({path: groups}))
    with formats.open(tmp_path) as checkpoint, pytest.raises(FormatError, match="its parts overlap"):
        raise checkpoint.unopened["model"]
    groups[1]["sharding_metadata"]["data"]["global_offsets"] = ((4, 0),)
    change(tmp_path, lambda items: items["model"]["nested_path_to_metadata"].update({path: groups}))
    assert torch.equal(statedict.load(tmp_path)["model"]["encoder.weight"], model()["encoder.weight"])
    groups[1]["sharding_metadata"]["data"]["local_offsets"] = ((1, 0),)
    change(tmp_path, lambda items: items["model"]["nested_path_to_metadata"].update({path: groups}))
    with formats.open(tmp_path) as checkpoint, pytest.raises(FormatError, match="exceeds the tensor"):
        raise checkpoint.unopened["model"]


@pytest.mark.parametrize("path", ["../model_0.pt", "/etc/passwd", "a//b", "", "a\\b", "c:x", "\0", 7])
def test_files_outside_of_the_folder_are_refused(tmp_path, path):
    """A layout names a file below the folder."""
    written(tmp_path, (2,), 0)
    change(tmp_path, lambda items: items["model"]["rank_to_layout_info"].update({0: {"file_path": path}}))
    with pytest.raises(FormatError, match="is not a file of the folder"):
        formats.open(tmp_path)


def test_a_file_for_two_ranks_is_refused(tmp_path):
    """torch_checkpointing refuses it, too."""
    written(tmp_path, (2,), 0)
    change(tmp_path, lambda items: items["model"]["rank_to_layout_info"].update({0: {"file_path": "model_1.pt"}}))
    with pytest.raises(FormatError, match="gives a file to several ranks"):
        formats.open(tmp_path)


def test_other_versions_are_refused(tmp_path):
    """The error says which version is supported."""
    written(tmp_path, (2,), 0)
    raw = (tmp_path / "metadata.pkl").read_bytes().replace(b"2.0", b"3.0")
    (tmp_path / "metadata.pkl").write_bytes(raw)
    with pytest.raises(FormatError, match=r"unsupported version '3\.0' of the metadata; '2\.0' is supported"):
        formats.open(tmp_path)


def test_metadata_is_data(tmp_path):
    """Nothing that the pickle names is imported; loading the checkpoint is refused."""
    written(tmp_path, (2,), 0)
    raw = (tmp_path / "metadata.pkl").read_bytes()
    (tmp_path / "metadata.pkl").write_bytes(raw[:2] + b"cos\nsystem\n(S'exit 1'\ntR0" + raw[11:])
    with formats.open(tmp_path) as checkpoint:
        assert checkpoint.dangerous == ["os.system"]


def test_synchronous_saves_have_no_metadata(tmp_path):
    """Those of one process are known by the names of their files; each item is a root."""
    for name, value in {"model": model(), "optim": {"state": {}, "param_groups": []}, "step": 3}.items():
        torch.save(value, tmp_path / f"{name}_0.pt")
    with formats.open(tmp_path) as checkpoint:
        assert checkpoint.format == "torch-checkpointing"
        assert checkpoint.object["step"] == 3
        assert list(checkpoint.state_dict()) == list(model())


def test_what_the_library_saves_is_read(tmp_path):
    """One process, without a process group; skipped where the library is not installed."""
    library = pytest.importorskip("torch_checkpointing")
    filesystem = pytest.importorskip("torch_checkpointing.storage.filesystem")
    config = library.CheckpointManager.Config.with_sync_save()
    config.storage_config = filesystem.LocalFileSystemStorageConfig(use_direct_io=False)
    manager = library.CheckpointManager(config)
    manager.save(str(tmp_path / "run"), {"model": model(), "step": 3})
    manager.close()
    found = statedict.load(tmp_path / "run")
    assert found["step"] == 3
    assert all(torch.equal(found["model"][name], value) for name, value in model().items())


def test_an_optimizer_state_by_name_can_be_loaded(tmp_path):
    """`optimizer_transform_pre` drops `params`; their names take their place."""
    module = torch.nn.Linear(2, 3)
    saved = torch.optim.Adam(module.named_parameters(), lr=0.5)
    module(torch.ones(2)).sum().backward()
    saved.step()
    state = saved.state_dict()
    groups = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    names = groups[0]["param_names"]
    by_name = {
        "state": {names[index]: moments for index, moments in state["state"].items()},
        "param_groups": groups,
        "_optimizer_state_format_version": 1,
    }
    torch.save(by_name, tmp_path / "optim_0.pt")
    torch.save(module.state_dict(), tmp_path / "model_0.pt")
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    statedict.load_state_dict(optimizer, tmp_path)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert torch.equal(optimizer.state[module.bias]["exp_avg"], saved.state[module.bias]["exp_avg"])


def test_numbered_files_that_are_not_of_ranks_are_left_alone(tmp_path):
    """Files of several numbers without DTensors may be of several steps."""
    for name in ("generator", "discriminator"):
        for number in (0, 1):
            torch.save(model(), tmp_path / f"{name}_{number}.pt")
    with pytest.raises(UnknownFormatError, match="several checkpoints"):
        formats.open(tmp_path)


def test_local_tensors_without_a_description_are_refused(tmp_path):
    """Safetensors files of several ranks that the metadata does not describe cannot be joined."""
    written(tmp_path, (2,), 0)
    for rank in (0, 1):
        statedict.save({"w": torch.ones(2)}, tmp_path / f"ema_{rank}.safetensors")
    with formats.open(tmp_path) as checkpoint:
        with pytest.raises(FormatError, match="2 files do not say which part"):
            raise checkpoint.unopened["ema"]
        assert "unread" in {finding.level for finding in checkpoint.verify()}  # they are not damaged
