"""Safetensors files of several ranks (`DCP_SHARDING_INFO`) are one checkpoint; one of them alone says that it is a part."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import save_file

import statedict
from statedict import formats
from statedict.errors import FormatError, PartError
from statedict.state import Parts

from .test_distributed import as_torch, assert_same
from .test_distributed import sharded as sharded  # a fixture


def write(folder, rank, tensors, offsets):
    """Write a rank's file, as PyTorch does."""
    folder.mkdir(exist_ok=True)
    info = {name: {"saved_offsets": list(at)} for name, at in offsets.items()}
    path = folder / f"shard-{rank:05}-model-00001-of-00001.safetensors"
    save_file(tensors, path, {"DCP_SHARDING_INFO": json.dumps(info), "DCP_VERSION": "1.0", "format": "pt"})
    return path


@pytest.fixture
def parts(tmp_path):
    """A directory of two ranks: `w` is divided by rows, `b` is on the first rank."""
    whole = torch.arange(10.0).reshape(5, 2)
    write(tmp_path / "run", 1, {"w": whole[:3], "b": torch.ones(3)}, {"w": (0, 0), "b": (0,)})
    write(tmp_path / "run", 2, {"w": whole[3:]}, {"w": (3, 0)})
    return whole, tmp_path / "run"


def test_files_that_pytorch_wrote_open_as_the_whole(sharded):
    """What HuggingFaceStorageWriter(save_distributed=True) writes on two ranks is read as the whole tensors."""
    state, folder = sharded
    with formats.open(folder.with_name("saved-safetensors")) as checkpoint:
        found = as_torch(checkpoint.object)
        assert_same(state["model"], {key: found[key] for key in state["model"]})
        assert {finding.level for finding in checkpoint.verify()} == {"note"}
        assert checkpoint.texts == {}


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_are_joined_along_any_axis(tmp_path, axis):
    """Parts of different sizes along either axis become the whole tensor, and load into a model."""
    whole = torch.arange(24.0).reshape(4, 6)
    for rank, (start, part) in enumerate(zip((0, 1), whole.split((1, whole.shape[axis] - 1), axis)), 1):
        write(tmp_path, rank, {"weight": part.contiguous()}, {"weight": (start, 0) if axis == 0 else (0, start)})
    model = torch.nn.Linear(6, 4, bias=False)
    statedict.load_state_dict(model, tmp_path)
    assert torch.equal(model.weight, whole)


def test_one_file_alone_says_that_it_is_a_part(parts):
    """Opening, inspecting and verifying it say so; loading it, or loading from it into a model, is refused."""
    _, folder = parts
    for path in folder.iterdir():
        with formats.open(path) as checkpoint:
            assert any("one rank's part" in note for note in checkpoint.notes)
            assert any("one rank's part" in finding.text for finding in checkpoint.verify())
            assert "a part, at" in repr(checkpoint.object["w"])
        with pytest.raises(PartError, match=r"shard-0000\d.*: \w+: only a part of this tensor .* all of it is needed"):
            statedict.load(path)
        for shape in ((3, 2), (5, 2)):
            model = torch.nn.Module()
            model.w = torch.nn.Parameter(torch.zeros(shape))
            with pytest.raises((PartError, RuntimeError)):
                statedict.load_state_dict(model, path, allow_unexpected="b")
            assert not model.w.any()
        for suffix in (".pt", ".safetensors", ".npz"):
            with pytest.raises(PartError), statedict.open(path) as checkpoint:
                statedict.save(checkpoint.state_dict(), folder.with_suffix(suffix))
            assert not folder.with_suffix(suffix).exists()


def test_a_missing_part_is_named_and_the_rest_loads(parts):
    """Without the first rank's rows, `w` cannot be read; tensors of the other file can."""
    whole, folder = parts
    write(folder, 2, {"w": whole[3:], "c": torch.ones(2)}, {"w": (3, 0), "c": (0,)})
    (folder / "shard-00001-model-00001-of-00001.safetensors").unlink()
    with formats.open(folder) as checkpoint:
        assert checkpoint.notes[1] == "there is no file of rank 1 (a rank may have had no part)"
        assert checkpoint.verify()[0][:2] == ("error", "w")
        assert checkpoint.state_dict().select("c").torch()["c"].tolist() == [1, 1]
        with pytest.raises(
            PartError, match=r"run: w: only a part of this tensor of shape \[5, 2\] \(1 parts with gaps\)"
        ):
            statedict.load(folder)


def test_the_same_part_of_two_ranks_is_used_once(parts):
    """Ranks may save a replicated tensor each; PyTorch's reader accepts that too."""
    whole, folder = parts
    write(folder, 3, {"b": torch.ones(3), "w": whole[3:]}, {"b": (0,), "w": (3, 0)})
    assert torch.equal(statedict.load(folder)["w"], whole)


@pytest.mark.parametrize(
    ("info", "match"),
    [
        ({}, "does not list the tensors of the file"),
        ([], "does not list the tensors of the file"),
        ({"w": {"saved_offsets": [0]}}, r"saved_offsets in DCP_SHARDING_INFO do not fit shape \[3, 2\]"),
        ({"w": {"saved_offsets": [-1, 0]}}, "do not fit shape"),
        ({"w": {"saved_offsets": [2**63 - 2, 0]}}, "do not fit shape"),
        ({"w": {"saved_offsets": [True, 0]}}, "do not fit shape"),
        ({"w": [0, 0]}, "do not fit shape"),
    ],
)
def test_sharding_information_that_does_not_fit_is_refused(tmp_path, info, match):
    """Offsets that are missing, negative, too large or of another kind are an error of the file."""
    path = tmp_path / "shard-00001-model-00001-of-00001.safetensors"
    save_file({"w": torch.zeros(3, 2)}, path, {"DCP_SHARDING_INFO": json.dumps(info)})
    for place in (path, tmp_path):
        with pytest.raises(FormatError, match=match):
            formats.open(place)


def test_parts_that_contradict_each_other_are_refused(parts):
    """Parts of other dtypes or numbers of dimensions, and files without offsets, are errors; overlaps leave a gap."""
    whole, folder = parts
    for tensor, at in ((whole[3:].double(), (3, 0)), (whole[3:].reshape(-1), (6,))):
        write(folder, 2, {"w": tensor}, {"w": at})
        with pytest.raises(FormatError, match="its parts differ in dtype or number of dimensions"):
            formats.open(folder)
    write(folder, 2, {"w": whole[2:]}, {"w": (2, 0)})
    with pytest.raises(PartError):
        statedict.load(folder)
    save_file({"w": whole}, folder / "shard-00002-model-00001-of-00001.safetensors")
    with pytest.raises(FormatError, match="does not say where in the whole tensor it belongs"):
        formats.open(folder)


def test_a_converted_checkpoint_is_an_ordinary_file(parts, tmp_path):
    """The joined tensors are saved without the ranks' information, so that no reader takes them for parts."""
    whole, folder = parts
    with statedict.open(folder) as checkpoint:
        statedict.save(checkpoint.state_dict(), tmp_path / "whole.safetensors")
    shutil.rmtree(folder)
    with statedict.open(tmp_path / "whole.safetensors") as checkpoint:
        assert not any("DCP" in key for key in checkpoint.metadata)
        assert torch.equal(checkpoint.state_dict().torch()["w"], whole)


WHOLE = {
    "a.weight": torch.arange(24.0).reshape(6, 4),
    "b.weight": torch.ones(5, 8).to(torch.bfloat16),
    "c": torch.arange(7.0),
}
MODES = {
    "one_file": {},
    "indexed": {"fqn_to_index_mapping": {"a.weight": 1, "b.weight": 2, "c": 2}},
    "ranks": {"save_distributed": True},
    "consolidated": {"save_distributed": True, "enable_consolidation": True},
}


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_every_mode_of_the_writer_gives_whole_tensors(tmp_path, options):
    """Whatever HuggingFaceStorageWriter is asked to write, the tensors are whole, and no note calls them parts."""
    from torch.distributed.checkpoint import HuggingFaceStorageWriter, save

    with warnings.catch_warnings(action="ignore"):  # of a process group that is not there
        save(dict(WHOLE), storage_writer=HuggingFaceStorageWriter(str(tmp_path / "saved"), **options))
    with formats.open(tmp_path / "saved") as checkpoint:
        assert_same(WHOLE, {name: as_torch(checkpoint.object[name]) for name in WHOLE})
        assert not any("part" in note for note in checkpoint.notes)


def test_files_of_ranks_that_were_not_consolidated_are_read(parts, tmp_path):
    """A save that ended before it consolidated the files leaves them in the folder `sharded`."""
    whole, folder = parts
    above = tmp_path / "above"
    above.mkdir()
    shutil.move(folder, above / "sharded")
    with formats.open(above) as checkpoint:
        assert torch.equal(as_torch(checkpoint.object["w"]), whole)


def test_a_first_part_under_another_name_is_a_part(tmp_path):
    """Only the name that one process gives to its files makes tensors that begin at 0 whole."""
    entry = json.dumps({"w": {"saved_offsets": [0]}})
    for name, whole in (("model-00001-of-00001.safetensors", True), ("renamed.safetensors", False)):
        save_file({"w": torch.ones(3)}, tmp_path / name, metadata={"DCP_SHARDING_INFO": entry})
        with formats.open(tmp_path / name) as checkpoint:
            assert isinstance(checkpoint.object["w"], Parts) != whole
