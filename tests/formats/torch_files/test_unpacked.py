"""Archives that were unpacked: folders with `data.pkl`; torch.load of the archive is the oracle."""

from __future__ import annotations

import io
import os
import warnings
import zipfile

import numpy as np
import pytest

import statedict
from statedict import formats
from statedict.errors import FormatError, TruncatedError
from statedict.state import Absent

torch = pytest.importorskip("torch")


def tree():
    torch.manual_seed(0)
    weight = torch.randn(300, 40)
    model = {"weight": weight, "tied": weight, "row": weight[3], "count": torch.tensor(7), "none": torch.empty(0)}
    return {"model": model, "epoch": 3}


def unpack(file, folder):
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """What unpacking `model.pth` gives: a folder `model` in the folder."""
    torch.save(tree(), tmp_path / "model.pth")
    return unpack(tmp_path / "model.pth", tmp_path / "unpacked")


@pytest.mark.parametrize("inside", ["", "model"])
def test_the_folder_is_read_like_the_archive(folder, inside):
    """The folder can be opened by itself, or by the one that contains it; a note says that there are no checksums."""
    with formats.open(folder / inside) as checkpoint:
        assert checkpoint.format == "torch"
        assert checkpoint.object["epoch"] == 3
        state = checkpoint.state_dict()
        assert {name: value.tolist() for name, value in state.numpy().items()} == {
            name: value.tolist() for name, value in tree()["model"].items()
        }
        assert state.tied == [("weight", "tied", "row")] or ("weight", "tied") in state.tied
        (note,) = checkpoint.verify()
        assert (note.level, note.text) == ("note", checkpoint.notes[0])
        assert "drops the checksums" in note.text


def test_load_gives_what_torch_load_gives(folder):
    """Values of all kinds, and shared storages."""
    found, expected = statedict.load(folder), torch.load(folder.parent / "model.pth", weights_only=True)
    assert found["epoch"] == expected["epoch"]
    assert all(torch.equal(found["model"][name], value) for name, value in expected["model"].items())
    assert found["model"]["weight"].data_ptr() == found["model"]["tied"].data_ptr()


def test_a_missing_file_is_named_and_the_rest_loads(folder):
    """Tensors of the missing file are absent; what does not need them loads."""
    lost = folder / "model" / "data" / "1"
    lost.unlink()
    with formats.open(folder) as checkpoint:
        assert isinstance(checkpoint.object["model"]["count"], Absent)
        (error, _) = checkpoint.verify(values=True)
        assert (error.level, error.where) == ("error", "model/count")
        assert error.text == f"its bytes should be in {lost}, which is missing"
        state = checkpoint.state_dict()
        with pytest.raises(FormatError, match=f"{lost}.*missing"):
            dict(state.numpy())
        assert state.drop("count").numpy()["weight"].shape == (300, 40)


def test_a_file_of_several_tensors_may_be_missing(folder):
    """Each tensor of it is absent, and no other."""
    (folder / "model" / "data" / "0").unlink()
    with formats.open(folder) as checkpoint:
        absent = {name for name, leaf in checkpoint.object["model"].items() if isinstance(leaf, Absent)}
        assert absent == {"weight", "tied", "row"}


def test_a_short_file_is_refused(folder):
    """A storage that the file cannot contain is refused when the folder is opened."""
    os.truncate(folder / "model" / "data" / "0", 100)
    with pytest.raises(
        FormatError, match=r"12,000 elements of 4 bytes is named here, but archive/data/0 has 100 bytes"
    ):
        formats.open(folder)


def test_a_file_that_is_truncated_later_is_named(folder):
    """The file is opened when it is read; the error names it."""
    with formats.open(folder) as checkpoint:
        os.truncate(folder / "model" / "data" / "0", 100)
        with pytest.raises(TruncatedError, match=str(folder / "model" / "data" / "0")):
            dict(checkpoint.state_dict().numpy())


def test_the_pickle_is_data(folder):
    """Nothing that it names is imported."""
    (folder / "model" / "data.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with formats.open(folder) as checkpoint:
        assert checkpoint.dangerous == ["os.system"]


def test_the_bytes_of_another_order_are_turned(folder):
    """`byteorder` is respected as in an archive."""
    path = folder / "model"
    for name, size in (("0", 4), ("1", 8)):
        raw = (path / "data" / name).read_bytes()
        (path / "data" / name).write_bytes(np.frombuffer(raw, f"<i{size}").astype(f">i{size}").tobytes())
    (path / "byteorder").write_text("big")
    with formats.open(folder) as checkpoint:
        found = checkpoint.state_dict().numpy()
        assert found["count"].tolist() == 7
        assert found["weight"].tolist() == tree()["model"]["weight"].tolist()


def test_other_weights_beside_the_folder_come_first(folder):
    """A folder of weights that also contains an unpacked archive is a folder of weights."""
    torch.save({"weight": torch.ones(1)}, folder / "other.pth")
    with formats.open(folder) as checkpoint:
        assert list(checkpoint.object) == ["weight"]


def test_a_data_set_is_not_an_unpacked_archive(tmp_path):
    """A file `data.pkl` beside weights, without the other files of an archive, is left alone."""
    (tmp_path / "data.pkl").write_bytes(b"N.")
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pth")
    for folder in ("", "data"):
        (tmp_path / folder).mkdir(exist_ok=True)
        with formats.open(tmp_path) as checkpoint:
            assert list(checkpoint.object) == ["weight"]


def test_hidden_folders_do_not_count(folder):
    """Programs that unpack archives leave such folders behind."""
    (folder / "__MACOSX").mkdir()
    (folder / ".cache").mkdir()
    with formats.open(folder) as checkpoint:
        assert checkpoint.object["epoch"] == 3


def test_links_to_missing_files_and_to_itself_are_harmless(folder):
    """A link to a missing file is a missing file; a folder that contains itself is listed to a limited depth."""
    (folder / "model" / "data" / "1").unlink()
    (folder / "model" / "data" / "1").symlink_to("nowhere")
    (folder / "model" / "again").symlink_to(".")
    with formats.open(folder) as checkpoint:
        assert isinstance(checkpoint.object["model"]["count"], Absent)


def test_too_many_files_are_refused(folder):
    """The limit is that of the members of an archive."""
    with pytest.raises(FormatError, match=r"a folder of 4 files exceeds the limit of 3"):
        formats.open(folder, limits=formats.Limits(zip_members=3))


def test_unpacked_torchscript_is_read(tmp_path):
    """Its code says which tensors are parameters, as in the archive."""
    with warnings.catch_warnings(action="ignore"):
        script = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)))
        script.save(tmp_path / "s.pt")
    with formats.open(unpack(tmp_path / "s.pt", tmp_path / "s")) as checkpoint:
        assert checkpoint.format == "torchscript"
        assert list(checkpoint.state_dict()) == list(script.state_dict())


@pytest.mark.skipif(torch.__version__ < (2, 9), reason="PyTorch writes this layout from 2.9 on")
@pytest.mark.filterwarnings("ignore")
def test_unpacked_packages_of_torch_export_are_read(tmp_path):
    """A missing payload is named by its path."""
    program = torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "m.pt2")
    folder = unpack(tmp_path / "m.pt2", tmp_path / "m")
    for place in (folder, folder / "m"):
        with formats.open(place) as checkpoint:
            assert checkpoint.format == "pt2"
            assert all(
                value.tolist() == program.state_dict[name].tolist()
                for name, value in checkpoint.state_dict().numpy().items()
            )
    (folder / "m" / "data" / "weights" / "weight_0").unlink()
    with formats.open(folder) as checkpoint, pytest.raises(FormatError, match=r"m/data/weights/weight_0: .*missing"):
        dict(checkpoint.state_dict().numpy())


def test_old_packages_of_torch_export_are_read(tmp_path):
    """Those before PyTorch 2.8 have no folder in the archive; the files in it have checksums of their own."""
    inner = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, inner)
    (tmp_path / "serialized_exported_program.json").write_text("{}")
    (tmp_path / "serialized_state_dict.pt").write_bytes(inner.getvalue())
    (tmp_path / "version").write_text("7.1")
    with formats.open(tmp_path) as checkpoint:
        assert checkpoint.state_dict().numpy()["weight"].tolist() == [1, 1]
    raw = bytearray(inner.getvalue())
    raw[raw.index(np.ones(2, "<f4").tobytes())] ^= 1
    (tmp_path / "serialized_state_dict.pt").write_bytes(raw)
    with formats.open(tmp_path) as checkpoint:
        assert [f.where for f in checkpoint.verify() if f.level == "error"] == ["serialized_state_dict.pt/weight"]
