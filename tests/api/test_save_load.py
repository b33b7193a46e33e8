"""`statedict.save` and `statedict.load` are `torch.save` and `torch.load`, in both directions, without running code."""

import io
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from tests.archives import packed, unpacked
from tests.hostile.build import pickles as p
from tests.hostile.build.torch_zips import torch_zip
from torch import nn

import statedict
from statedict.errors import FormatError, SaveError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "1GB"}])
def test_a_directory_s_name_is_no_file_s(tmp_path, monkeypatch, options):
    """A path that ends in a slash names a directory, in which nothing is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(statedict.errors.SaveError, match="'new/' is a directory: pass the path of a file in it"):
        statedict.save({"a": np.ones(2)}, "new/", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tree():
    """A training checkpoint with every dtype, empty and scalar tensors, views and ties."""
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "model": OrderedDict((str(dtype), torch.arange(6).to(dtype).reshape(2, 3)) for dtype in DTYPES),
        "views": [base[1:3, ::2], base.t(), base],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "epoch": 3,
        "name": "run",
        "nested": ({"lr": 0.1, "betas": (0.9, 0.999)}, None, True, {1, 2}),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        assert a.requires_grad == b.requires_grad
        assert torch.equal(
            a.to(torch.float32) if a.dtype.itemsize == 1 else a, b.to(torch.float32) if b.dtype.itemsize == 1 else b
        )
    elif isinstance(a, dict):
        assert list(a) == list(b)
        assert type(a) is type(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert type(a) is type(b)
        assert len(a) == len(b)
        for one, other in zip(a, b):
            same(one, other)
    else:
        assert a == b


@pytest.mark.parametrize("options", [{}, {"mmap": True}])
def test_torch_loads_what_is_saved_here(tmp_path, tree, options):
    """`torch.load(weights_only=True)`, mapped or not, gives the same tree tensor for tensor."""
    del tree["views"]  # whose strides are those of their elements: below
    path = tmp_path / "run.pt"
    statedict.save(tree, path)
    same(torch.load(path, weights_only=True, **options), tree)


@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"verify": False}])
@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saves_is_loaded_here(tmp_path, tree, options, legacy):
    """`statedict.load` gives the same tree as `torch.load`, of both of its formats, mapped or not, ties included."""
    path = tmp_path / "run.pt"
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
    loaded = statedict.load(path, **options)
    same(loaded, tree)
    first, second, third = (view.untyped_storage().data_ptr() for view in loaded["views"])
    assert first == second == third


def test_what_cannot_be_mapped_is_read_if_it_is_little(tmp_path, monkeypatch):
    """An archive whose members are compressed or not aligned is not quietly read where a mapping was asked for."""
    statedict.save({"w": np.arange(1000.0)}, tmp_path / "m.pt")
    for name, method in (("stored.pt", zipfile.ZIP_STORED), ("deflated.pt", zipfile.ZIP_DEFLATED)):
        (tmp_path / name).write_bytes(packed(unpacked(tmp_path / "m.pt"), method))
        mapped = statedict.load(tmp_path / name, mmap=True, backend="numpy")
        assert (mapped["w"] == np.arange(1000.0)).all()
    monkeypatch.setattr("statedict.state.tensors._materialize.UNMAPPED", 7999)
    statedict.load(tmp_path / "m.pt", mmap=True, backend="numpy")
    with pytest.raises(
        FormatError, match=r"deflated\.pt: 8,000 bytes of tensors cannot be mapped: .*load it without mmap"
    ):
        statedict.load(tmp_path / "deflated.pt", mmap=True, backend="numpy")


def test_a_mapped_file_is_never_written_to(tmp_path):
    """Tensors of `mmap=True` can be changed; the file stays as it is."""
    path = tmp_path / "model.pt"
    torch.save({"w": torch.zeros(5000)}, path)
    before = path.read_bytes()
    statedict.load(path, mmap=True)["w"].fill_(1.0)
    assert path.read_bytes() == before


def test_modules_keep_their_metadata(tmp_path, api):
    """A module's state goes through a file of either side with its names, values, versions and ties."""
    model = api.fill(api.Net(), 0)
    wanted = model.state_dict()
    for number, (save, load) in enumerate(
        [
            (statedict.save, lambda path: torch.load(path, weights_only=True)),
            (lambda model, path: torch.save(model.state_dict(), path), statedict.load),
            (statedict.save, statedict.load),
        ]
    ):
        path = tmp_path / f"{number}.pt"
        save(model, path)
        loaded = load(path)
        assert type(loaded) is OrderedDict
        assert list(loaded) == list(wanted)
        assert api.bits(loaded) == api.bits(wanted)
        assert loaded._metadata == wanted._metadata
        assert loaded["embed.weight"].data_ptr() == loaded["head.weight"].data_ptr()


def test_a_view_is_saved_as_its_elements(tmp_path):
    """One row of a large tensor is a small file, and views of one tensor stay tied."""
    big = torch.arange(1_000_000.0).reshape(1000, 1000)
    path = tmp_path / "row.pt"
    statedict.save({"row": big[3]}, path)
    assert path.stat().st_size < 20_000
    assert torch.equal(torch.load(path, weights_only=True)["row"], big[3])
    model = nn.Linear(4, 4)
    statedict.save({"a": model.weight.detach(), "b": model.weight.detach()[:2]}, path)
    loaded = torch.load(path, weights_only=True)
    assert loaded["a"].untyped_storage().data_ptr() == loaded["b"].untyped_storage().data_ptr()


@pytest.mark.parametrize("as_file", ["str", "path", "file", "buffer"])
def test_paths_and_file_objects(tmp_path, as_file):
    """A str, a pathlib.Path, an open file and a buffer are all the same to save, load, open and load_state_dict."""
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    path = tmp_path / "model.pt"
    buffer = io.BytesIO()
    target = {"str": str(path), "path": path, "file": None, "buffer": buffer}[as_file]
    if as_file == "file":
        with path.open("wb") as file:
            statedict.save(model, file)
    else:
        statedict.save(model, target)
    opened = path.open("rb") if as_file == "file" else target
    for act in (
        statedict.load,
        lambda given: statedict.load_state_dict(other, given),
        lambda given: statedict.open(given).close(),
    ):
        if hasattr(opened, "seek"):
            opened.seek(0)
        act(opened)
    if as_file == "file":
        assert not opened.closed  # it is the caller's
        opened.close()
    assert torch.equal(other.weight, model.weight)


def test_equal_content_gives_equal_bytes(tmp_path, api):
    """A file can be told by its hash."""
    for name in ("a.pt", "b.pt"):
        statedict.save(api.fill(api.Net(), 1), tmp_path / name)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt"])
def test_every_format_gives_back_a_model(tmp_path, api, suffix):
    """What is saved by suffix is loaded by content, bit for bit."""
    model, other = api.fill(api.Net(), 0), api.fill(api.Net(), 1)
    path = tmp_path / f"model.{suffix}"
    statedict.save(model, path)
    statedict.load_state_dict(other, path)
    assert api.bits(other.state_dict()) == api.bits(model.state_dict())


def test_shards(tmp_path, api):
    """`max_shard_size` splits; the index is the file to load."""
    model, other = (
        nn.Sequential(*(nn.Linear(40, 40) for _ in range(4))),
        nn.Sequential(*(nn.Linear(40, 40) for _ in range(4))),
    )
    statedict.save(model, tmp_path / "model.safetensors", max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    [index] = tmp_path.glob("*.index.json")
    statedict.load_state_dict(other, index)
    assert api.bits(other.state_dict()) == api.bits(model.state_dict())


def test_a_saved_state_does_not_name_this_library(tmp_path, api):
    """Pickles of a StateDict are OrderedDicts with `_metadata`."""
    state = statedict.state_dict(api.Net())
    assert b"statedict" not in pickle.dumps(state)
    torch.save(state, tmp_path / "model.pt")
    assert b"statedict" not in (tmp_path / "model.pt").read_bytes()
    assert torch.load(tmp_path / "model.pt", weights_only=True)._metadata == api.Net().state_dict()._metadata


def test_map_location(tmp_path):
    """One device for all, here the one without memory, or by the device that a tensor was saved from."""
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(3)}, path)
    assert statedict.load(path, map_location="meta")["w"].device.type == "meta"
    assert statedict.load(path, map_location={"cpu": "meta"})["w"].device.type == "meta"
    assert statedict.load(path, map_location={"cuda:0": "meta"})["w"].device.type == "cpu"


@pytest.mark.parametrize("made", [5, "cpu", ()])
def test_a_function_as_map_location_returns_storages(tmp_path, made):
    """Anything else is a mistake in the function, and is said to be."""
    torch.save({"w": torch.ones(3)}, tmp_path / "model.pt")
    with pytest.raises(TypeError, match=r"map_location= returned .* for 'cpu': it returns a storage, or None"):
        statedict.load(tmp_path / "model.pt", map_location=lambda storage, location: made)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz", ".npy"])
def test_tensors_without_values_are_named(tmp_path, suffix):
    """A tensor on the meta device has no values to save, in any format; no file is left behind."""
    gone = torch.ones(2, device="meta")
    state, name = (gone, "") if suffix == ".npy" else ({"there": torch.ones(2), "gone": gone}, "gone: ")
    with pytest.raises(SaveError, match=f"^{name}this tensor is on the meta device"):
        statedict.save(state, tmp_path / f"model{suffix}")
    assert list(tmp_path.iterdir()) == []


WITHOUT_TORCH = """
import sys
import zipfile
sys.modules["torch"] = None
import numpy as np, statedict
for backend in ("auto", "numpy"):
    loaded = statedict.load("model.pt", backend=backend)
    assert type(loaded["model"]["conv.weight"]) is np.ndarray
    model = loaded["model"]
    print(loaded["epoch"], float(model["conv.weight"].sum()), loaded["half"].dtype, model._metadata["norm"])
with statedict.open("model.pt") as checkpoint:
    statedict.save(checkpoint.state_dict("model"), "copy.pt")
statedict.save(statedict.snapshot({"w": np.ones(2)}), "w.pt")
"""


def test_files_are_read_and_written_without_torch(tmp_path, api):
    """NumPy arrays, bfloat16 too, with the metadata, where torch cannot be imported; torch loads the copy."""
    model = api.fill(api.Net(), 0)
    torch.save(
        {"model": model.state_dict(), "epoch": 3, "half": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "model.pt"
    )
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    line = f"3 {float(model.conv.weight.detach().sum())} bfloat16 {{'version': 2}}"
    assert done.stdout.splitlines() == [line, line]
    copied = torch.load(tmp_path / "copy.pt", weights_only=True)
    assert api.bits(copied) == api.bits(model.state_dict())
    assert copied._metadata == model.state_dict()._metadata
    assert torch.equal(torch.load(tmp_path / "w.pt", weights_only=True)["w"], torch.ones(2, dtype=torch.float64))


def test_arrays_in_a_tree_stay_arrays(tmp_path):
    """NumPy arrays are tensors where they are a state, and arrays elsewhere, as `torch.save` has them."""
    path = tmp_path / "tree.pt"
    statedict.save({"array": np.arange(3), "tensor": torch.arange(3), "n": 1}, path)
    loaded = statedict.load(path)
    assert type(loaded["array"]) is np.ndarray
    assert type(loaded["tensor"]) is torch.Tensor
    assert loaded["array"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_a_tensor_whose_memory_was_freed_is_not_saved(tmp_path, suffix, count):
    """A tensor whose memory was freed, as FSDP does between steps, is refused, and the existing file stays."""
    path = tmp_path / f"a{suffix}"
    state = {f"w{n}": torch.ones(3) for n in range(count)}
    statedict.save(state, path)
    before = path.read_bytes()
    state["w1"].untyped_storage().resize_(0)
    with pytest.raises(statedict.errors.SaveError, match="its storage was freed"):
        statedict.save(state, path)
    assert path.read_bytes() == before


def torch_file(pickle):
    return io.BytesIO(torch_zip(p.pickled(pickle)))


INTEGERS = p.call(
    p.name("torch._utils", "_rebuild_tensor_v2"),
    *(p.storage(kind="IntStorage"), p.integer(0), p.integers((4,)), p.integers((1,)), p.TRUE, p.ordered_dict()),
)
UNLIVING = {
    "a gradient of integers": (INTEGERS, "tensor do not fit it: only Tensors of floating"),
    "a parameter of integers": (
        p.call(p.name("torch._utils", "_rebuild_parameter"), INTEGERS, p.TRUE, p.ordered_dict()),
        "do not fit it: Only Tensors of floating point",
    ),
    "a device": (p.call(p.name("torch", "device"), p.text("m8")), "the file contains an invalid device"),
    "a device as a key": (p.dict_((p.call(p.name("torch", "device"), p.text("m8")), p.NONE)), "invalid device"),
}


@pytest.mark.parametrize("name", UNLIVING)
def test_what_torch_cannot_make_is_a_damaged_file(name):
    """If PyTorch cannot make what a file describes, `load` raises FormatError; NumPy can have it."""
    pickle, says = UNLIVING[name]
    with pytest.raises(statedict.errors.FormatError, match=says):
        statedict.load(torch_file(pickle))
    statedict.load(torch_file(pickle), backend="numpy")


@pytest.mark.parametrize("location", ["cpu:abc", "meta:x", "cpu:-1", "cuda:-1", "distributed", "\n"])
def test_a_location_that_is_no_device_is_the_cpu(location):
    """A location in a file that is not a device means the CPU."""
    assert statedict.load(torch_file(p.tensor(p.storage(location=location)))).tolist() == [1, 2, 3, 4]


def test_keys_can_be_tensors():
    """Tensors can be the keys of a dict and the items of a set, as with torch.load."""
    tree = {torch.ones(2): "value", "set": {torch.zeros(1)}, torch.Size([1, 2]): 3}
    file = io.BytesIO()
    torch.save(tree, file)
    file.seek(0)
    found = statedict.load(file)
    assert [type(key) for key in found] == [torch.Tensor, str, torch.Size]
    assert next(iter(found)).tolist() == [1, 1]
    file.seek(0)
    with pytest.raises(statedict.errors.FormatError, match="has an array as a key or an item"):
        statedict.load(file, backend="numpy")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["nested", "quantised"])
def test_a_device_that_a_tensor_cannot_be_on_is_named(kind):
    """PyTorch has nested and quantised tensors on few devices."""
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    tensor = nested if kind == "nested" else torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    file = io.BytesIO()
    torch.save({"t": tensor}, file)
    file.seek(0)
    with pytest.raises(statedict.errors.FormatError, match=f"a {kind} tensor, which PyTorch cannot move to meta"):
        statedict.load(file, map_location="meta")


def test_a_view_on_the_meta_device_stays_a_view():
    """One element that is shown a trillion times needs no memory there either."""
    file = torch_file(p.tensor(size=(2**40, 4), stride=(0, 0)))
    found = statedict.load(file, map_location="meta")
    assert (found.device.type, found.shape, found.stride()) == ("meta", (2**40, 4), (0, 0))


def test_a_dimension_of_one_may_have_any_stride():
    """A dimension of size 1 may have any stride, as in PyTorch."""
    file = torch_file(p.dict_((p.text("w"), p.tensor(size=(1, 4), stride=(2**63 - 1, 1)))))
    assert statedict.load(file, backend="numpy")["w"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("suffix", [".safetensor", ".onnx", ".gguf", ".tmp"])
def test_an_unknown_suffix_is_refused(tmp_path, suffix):
    """A suffix that no format has is not taken for torch's, unless the format is said."""
    with pytest.raises(
        statedict.errors.SaveError, match=rf"no output format has the suffix '{suffix}'; the known suffixes are \.pt"
    ):
        statedict.save({"w": np.ones(1)}, tmp_path / f"a{suffix}")
    statedict.save({"w": np.ones(1)}, tmp_path / f"a{suffix}", format="npz")


@pytest.mark.parametrize("name", ["a", "a.pth", "a.ckpt", "step.100", "a.bin"])
def test_torchs_suffixes(tmp_path, name):
    """These, none, and numbers are torch's."""
    statedict.save({"w": np.ones(1)}, tmp_path / name)
    with statedict.open(tmp_path / name) as checkpoint:
        assert checkpoint.format == "torch"


@pytest.mark.parametrize(
    ("where", "device"),
    [
        (lambda storage, location: storage, "cpu"),
        (lambda storage, location: None, "cpu"),
        (lambda storage, location: torch.UntypedStorage(storage.nbytes(), device="meta"), "meta"),
    ],
)
def test_map_location_may_be_a_function(tmp_path, where, device):
    """As for torch.load, a function may move the storage to a device, or return None to leave it where it would go."""
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    assert statedict.load(tmp_path / "a.pt", map_location=where)["w"].device.type == device


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
@pytest.mark.parametrize("where", ["cuda", {"cpu": "cuda:1"}])
def test_a_device_that_is_not_there(tmp_path, where):
    """The error is torch.load's, which says what to do."""
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(RuntimeError, match=r"torch.cuda.is_available\(\) is False.*map_location"):
        statedict.load(tmp_path / "a.pt", map_location=where)


def test_map_location_is_for_torch(tmp_path):
    """NumPy arrays are on no device but the CPU."""
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(
        TypeError, match="map_location= applies to torch tensors only: NumPy arrays cannot be moved to 'cuda:7'"
    ):
        statedict.load(tmp_path / "a.pt", backend="numpy", map_location="cuda:7")
    statedict.load(tmp_path / "a.pt", backend="numpy", map_location="cpu")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz"])
def test_text_kept_with_a_file_goes_along(tmp_path, suffix):
    """What a file says besides its tensors is in the files that are made of it, and a diff compares it."""
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"ss_network_dim": "8", "format": "pt"})
    with statedict.open(tmp_path / "a.safetensors") as checkpoint:
        state = checkpoint.state_dict()
        statedict.save(state.rename("a -> b").to("half"), tmp_path / f"b{suffix}", metadata={"x": "1"})
        statedict.save(statedict.merge([state, state]), tmp_path / f"c{suffix}")
        statedict.save(state, tmp_path / f"d{suffix}", max_shard_size=4)
    told = {"ss_network_dim": "8"}
    for name, kept in (("b", {**told, "x": "1"}), ("c", told), ("d", told)):
        with statedict.open(tmp_path / f"{name}{suffix}") as checkpoint:
            assert checkpoint.texts == kept
    statedict.save({"a": torch.ones(2)}, tmp_path / f"e{suffix}", metadata={"ss_network_dim": "9"})
    found = statedict.diff(tmp_path / "a.safetensors", tmp_path / f"e{suffix}")
    assert found.texts == {"ss_network_dim": ("8", "9")}
    assert "ss_network_dim: '8' → '9'" in str(found)
    assert not statedict.diff(tmp_path / "a.safetensors", {"a": torch.ones(2)})


def test_text_that_does_not_fit_is_left_behind(tmp_path):
    """Text that came with a file does not keep it from being written in a format that has no room for it."""
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"long": "x" * 70_000})
    with statedict.open(tmp_path / "a.safetensors") as checkpoint:
        statedict.save(checkpoint.state_dict(), tmp_path / "b.npz")
    with statedict.open(tmp_path / "b.npz") as checkpoint:
        assert checkpoint.texts == {}
