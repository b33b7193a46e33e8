"""File objects: whatever `seek` returns, they are read from where they stand to their end."""

import io
import mmap

import numpy as np
import pytest

import statedict
from statedict import files
from statedict.errors import FileChangedError, UnknownFormatError

STATE = {"a": np.arange(300, dtype="f4"), "b": np.ones((3, 3))}


class Silent(io.BytesIO):
    """`seek` returns nothing, as that of `mmap.mmap` does before Python 3.13."""

    def seek(self, *arguments):
        super().seek(*arguments)


class Shifted(io.BytesIO):
    """`seek` returns the position in a larger file, as torch.distributed.checkpoint's views do."""

    def seek(self, *arguments):
        return super().seek(*arguments) + 1000


class Unseekable(Silent):
    """`seek` returns False, as a class that means to say whether it worked may do."""

    def seek(self, *arguments):
        super().seek(*arguments)
        return False


def saved(format):
    target = io.BytesIO()
    statedict.save(STATE, target, format=format)
    return target.getvalue()


def check(loaded):
    assert all(np.array_equal(loaded[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("kind", [Silent, Shifted, Unseekable])
@pytest.mark.parametrize("format", ["torch", "safetensors", "npz"])
@pytest.mark.parametrize("before", [b"", b"what stands before"])
def test_the_position_is_that_of_tell(kind, format, before):
    """The size of a file object is computed from `tell`, not from what `seek` returns."""
    stream = kind(before + saved(format))
    stream.seek(len(before))
    check(statedict.load(stream, backend="numpy"))


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_a_mapping_of_a_file_is_a_file_object(tmp_path, format):
    """`mmap.mmap` objects are read, and `verify` and a second load work on them too."""
    path = tmp_path / "m"
    path.write_bytes(saved(format))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        check(statedict.load(mapped, backend="numpy"))
        mapped.seek(0)
        with statedict.open(mapped) as checkpoint:
            assert [f for f in checkpoint.verify() if f.level == "error"] == []


@pytest.mark.parametrize("kind", [io.BytesIO, Silent])
def test_a_change_of_size_is_noticed(kind):
    """A file object that is longer or shorter than when it was opened is a FileChangedError."""
    stream = kind(b"0123456789")
    file = files.open(stream)
    file.check_unchanged()
    stream.seek(0)
    stream.truncate(5)
    with pytest.raises(FileChangedError, match="its size has changed"):
        file.check_unchanged()
    with pytest.raises(FileChangedError, match="it is shorter now"):
        file.read(3, 5)


@pytest.mark.parametrize("kind", [io.BytesIO, Silent])
def test_a_file_object_at_its_end_is_refused(kind):
    """The error says to call `seek(0)` first."""
    stream = kind(b"0123")
    stream.seek(0, 2)
    with pytest.raises(UnknownFormatError, match=r"is positioned at its end \(call seek\(0\) before"):
        files.open(stream)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_distributed_checkpoint_is_loaded_under_install(tmp_path):
    """torch.distributed.checkpoint hands views of parts of its files to `torch.load`: several tensors of each file load."""
    torch = pytest.importorskip("torch")
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    import statedict.torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    dcp.save({"m": model.state_dict()}, checkpoint_id=tmp_path / "dcp")
    with statedict.torch.install():
        state = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).state_dict()
        dcp.load({"m": state}, checkpoint_id=tmp_path / "dcp")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
