"""DTensors that ranks saved with torch.save are parts of tensors; the files of all ranks together are the whole."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from tests import forked

import statedict
from statedict import formats
from statedict.errors import FormatError, PartError
from statedict.formats._pickle import parse
from statedict.state import Parts, read_array

SHAPES = {"even": (8, 4), "uneven": (5, 7), "short": (2, 3)}


def whole(shape):
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with the files of four ranks."""
    made = tmp_path_factory.mktemp("ranks")
    forked.run(Path(__file__).with_name("rank_files_job.py"), made, action="default").check_returncode()
    return made


def test_the_files_of_all_ranks_are_one_checkpoint(folder):
    """Every placement, even, uneven and with empty shards, comes back as the whole tensor; values are the first rank's."""
    with formats.open(folder) as checkpoint:
        assert checkpoint.notes == ["the tensors are read from the files of 4 ranks"]
        assert [finding.level for finding in checkpoint.verify()] == ["note"]
        assert checkpoint.dangerous == []
        assert {named.risk for named in checkpoint.globals} == {"safe"}
    found = statedict.load(folder)
    assert (found["step"], found["rank"], found["weight"].requires_grad) == (3, 0, True)
    assert len(found["model"]) == 18
    for name, tensor in found["model"].items():
        assert torch.equal(tensor, whole(SHAPES[name.split(".")[1]])), name
    assert torch.equal(found["weight"].detach(), whole((8, 4)))
    assert statedict.load(folder, backend="numpy")["model"]["rows.uneven"].tolist() == whole((5, 7)).tolist()


def test_one_file_is_the_part_of_its_rank(folder):
    """It opens without a process group: the shape is that of the whole, the pieces are the rank's, and the placement is
    told."""
    for rank in range(4):
        path = folder / f"state_of_4_rank_{rank}.pt"
        with formats.open(path) as checkpoint:
            model = checkpoint.object["model"]
            assert all(type(leaf) is Parts for leaf in model.values())
            rows, strided = model["rows.even"], model["strided.even"]
            assert (rows.spec.shape, rows.placement) == ((8, 4), "[Shard(0) of 4]")
            assert strided.placement == "[StridedShard(0, 2) of dp 2, Shard(0) of tp 2]"
            assert read_array(rows.pieces[0].leaf).tolist() == whole((8, 4)).chunk(4)[rank].tolist()
            assert "only parts, which one rank saved" in checkpoint.notes[0]
            assert checkpoint.dangerous == []
        with pytest.raises(PartError, match=rf"rank_{rank}.pt: only a part of this tensor .* all of it is needed"):
            statedict.load(path)


def test_what_a_rank_has_all_of_is_loaded(folder, tmp_path):
    """A replicated tensor is whole in each file."""
    with statedict.open(folder / "state_of_4_rank_2.pt") as checkpoint:
        states = checkpoint.state_dict("model").select("replicated.*")
        statedict.save(states, tmp_path / "out.safetensors")
    found = statedict.load(tmp_path / "out.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        f"replicated.{label}": shape for label, shape in SHAPES.items()
    }


def test_a_missing_rank_is_named(folder, tmp_path):
    """Tensors that the other ranks have completely can be read; others raise PartError with the file and the name."""
    some = tmp_path / "some"
    shutil.copytree(folder, some)
    (some / "state_of_4_rank_1.pt").unlink()
    with formats.open(some) as checkpoint:
        assert checkpoint.notes[1] == "there is no file of rank 1 (a rank may have had no part)"
        assert {finding.where for finding in checkpoint.verify() if finding.level == "error"} >= {
            "model/rows.even",
            "weight",
        }
        assert torch.equal(checkpoint.state_dict("model").torch()["mixed.uneven"], whole((5, 7)))
    with pytest.raises(PartError, match=r"some: (weight|model/rows.even): only a part"):
        statedict.load(some)


def test_files_of_other_things_are_not_joined(tmp_path):
    """Numbered files without DTensors stay several checkpoints; only the first is opened to see that."""
    torch.save({"w": torch.ones(2)}, tmp_path / "step_0.pt")
    (tmp_path / "step_1.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(FormatError, match="several checkpoints"):
        formats.open(tmp_path)


def test_steps_of_one_rank_are_not_joined(folder, tmp_path):
    """Files that differ in a number and have the same parts are of one rank: none of them is taken for the whole."""
    for step in range(2):
        shutil.copy(folder / "state_of_4_rank_2.pt", tmp_path / f"step_{step}.pt")
    with pytest.raises(FormatError, match="several checkpoints"):
        formats.open(tmp_path)


def test_a_local_tensor_of_another_shape_is_refused(folder):
    """A file that contradicts itself is an error, not a tensor."""
    data = (folder / "state_of_4_rank_0.pt").read_bytes()
    # The size of the whole tensor (8, 4), as a tuple of two bytes, becomes (9, 4).
    changed = data.replace(b"K\x08K\x04\x86", b"K\x09K\x04\x86")
    assert changed != data
    with zipfile.ZipFile(io.BytesIO(changed)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        info = archive.getinfo(name)
        start = info.header_offset + 30 + len(name)
        start += int.from_bytes(changed[info.header_offset + 28 : info.header_offset + 30], "little")
        text = changed[start : start + info.file_size]
    storages = _storages()
    with pytest.raises(
        FormatError, match=r"local tensor of a DTensor of float32 \[9, 4\] \[Shard\(0\) of 4\] should be"
    ):
        parse(text, storage=storages)


def test_names_of_dimensions_that_cannot_be_shown_are_left_out(folder, tmp_path):
    """A mesh dimension may have any name in a file; one with control characters is not printed."""
    with zipfile.ZipFile(folder / "state_of_4_rank_0.pt") as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    changed = text.replace(b"X\x02\x00\x00\x00dp", b"X\x02\x00\x00\x00\x1b[")
    assert changed != text
    model = parse(changed, storage=_storages()).value["model"]
    assert model["both.even"].placement == "[Shard(0) of 2, Shard(1) of 2]"


def _storages():
    """Return a function that makes a storage of zeros for whatever a pickle names."""
    import numpy as np

    from statedict.formats._pickle import TypedStorage
    from statedict.state import leaf_of

    def storage(wanted):
        nbytes = wanted.numel * (wanted.dtype.itemsize if wanted.dtype else 1)
        return TypedStorage(leaf_of(np.zeros(nbytes, np.uint8)).storage, wanted.dtype, wanted.numel)

    return storage


def test_pytorchs_allowed_globals_never_count_as_code():
    """What weights_only=True allows once DTensors and nested tensors are imported is not refused as dangerous."""
    code = (
        "import torch, torch.distributed.tensor, torch.nested, torch.serialization as s\n"
        "from torch._weights_only_unpickler import _get_allowed_globals\n"
        "from statedict.formats._pickle import parse\n"
        "names = [each[1] if isinstance(each, tuple) else f'{each.__module__}.{each.__qualname__}'\n"
        "         for each in s.get_safe_globals()] + list(_get_allowed_globals())\n"
        "for name in names:\n"
        "    module, _, word = name.rpartition('.')\n"
        "    found = parse(f'c{module}\\n{word}\\n.'.encode(), storage=None)\n"
        "    assert not found.dangerous, name\n"
        "print(len(names))\n"
    )
    found = forked.run("-c", code)
    assert (found.returncode, found.stderr) == (0, "")
    assert int(found.stdout) > 150
