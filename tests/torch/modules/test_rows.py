"""Thousands of small tensors go from a file to a model, or to fresh memory, in columns, as one at a time would."""

from __future__ import annotations

import copy
import gc
import io
import math

import numpy as np
import pytest
import torch
from tests.archives import packed, unpacked

import statedict
import statedict.torch
from statedict.errors import ChecksumError, LoadError
from statedict.formats.torch_files._storages import ArchiveStorages
from statedict.state import Leaf, rows_of
from statedict.torch.modules._stages import scattered

COUNT = 400
SHAPES = [(4, 4), (3,), (2, 3, 2), (1,), (200,), (17000,)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.uint8]


def tensors(count: int = COUNT, shapes=SHAPES, dtypes=DTYPES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = {}
    for number in range(count):
        shape = shapes[number % len(shapes)]
        values = torch.randint(0, 2**31, (math.prod(shape) or 1,), generator=generator)
        made[f"block{number}_weight"] = values[: math.prod(shape)].to(dtypes[number % len(dtypes)]).reshape(shape)
    return made


def model_of(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    model = torch.nn.Module()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            model.register_parameter(name, torch.nn.Parameter(torch.zeros_like(tensor)))
        else:
            model.register_buffer(name, torch.zeros_like(tensor))
    return model


def equal(a, b) -> bool:
    return a.dtype is b.dtype and torch.equal(a, b)


@pytest.fixture(name="file")
def file_fixture(tmp_path) -> str:
    path = str(tmp_path / "model.pt")
    torch.save(tensors(), path)
    return path


@pytest.fixture(name="way", params=["found ahead", "one by one", "single leaves"])
def way_fixture(request, monkeypatch):
    """The ways to read a file: rows from a scan, rows from leaves, no rows. Each test is run with all."""
    if request.param != "found ahead":
        monkeypatch.setattr(ArchiveStorages, "have_rows", False)
    if request.param == "single leaves":
        monkeypatch.setattr(ArchiveStorages, "_adopt", lambda self: None)
    return request.param


@pytest.mark.parametrize("count", [1, 3, COUNT])
def test_tensors_are_rows(tmp_path, count, way):
    """All tensors of a plain file, however few, are rows of one table, unless that is turned off."""
    torch.save(tensors(count), tmp_path / "m.pt")
    with statedict.open(tmp_path / "m.pt") as checkpoint:
        assert (rows_of(list(checkpoint.object.values())) is not None) == (way != "single leaves")


@pytest.mark.parametrize("verify", [True, False])
def test_a_model_gets_its_elements(file, way, verify):
    """Each parameter and buffer gets the file's elements, and counts the change."""
    state = tensors()
    model = model_of(state)
    before = [tensor._version for tensor in model.state_dict(keep_vars=True).values()]
    assert statedict.load_state_dict(model, file, verify=verify).ok
    assert all(equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    after = [tensor._version for tensor in model.state_dict(keep_vars=True).values()]
    assert [new - old for old, new in zip(before, after)] == [1] * COUNT


def test_fresh_tensors(file, way):
    """A fresh load gives tensors of their own storages, which outlive the file."""
    state = tensors()
    loaded = statedict.load(file)
    gc.collect()
    assert list(loaded) == list(state)
    for name, tensor in loaded.items():
        assert equal(tensor, state[name])
        assert type(tensor) is torch.Tensor
        assert tensor.untyped_storage().nbytes() == state[name].nbytes
        assert tensor.data_ptr() % 64 == 0
    loaded["block0_weight"].zero_()
    assert equal(loaded["block6_weight"], state["block6_weight"])


def test_torch_load_gives_what_pytorch_gives(file, way):
    """Tensors from `torch.load` are in all their properties those of PyTorch, and do not share memory."""
    found, expected = statedict.torch.load(file), torch.load(file)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert equal(found[name], tensor)
        facts = [
            (t.stride(), t._version, t.untyped_storage().nbytes(), t.is_inference()) for t in (found[name], tensor)
        ]
        assert facts[0] == facts[1]
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == COUNT
    with torch.inference_mode():
        assert statedict.torch.load(file)["block0_weight"].is_inference()


def test_requires_grad_comes_back(tmp_path, way):
    """Tensors that required gradients do so again; parameters come as torch.load gives them."""
    state = {
        name: tensor.requires_grad_(number % 2 == 0)
        for number, (name, tensor) in enumerate(tensors(dtypes=[torch.float32]).items())
    }
    torch.save(state, tmp_path / "grad.pt")
    loaded, theirs = statedict.load(tmp_path / "grad.pt"), torch.load(tmp_path / "grad.pt")
    assert [tensor.requires_grad for tensor in loaded.values()] == [tensor.requires_grad for tensor in theirs.values()]
    assert all(equal(loaded[name], theirs[name]) for name in theirs)


def test_other_devices_names_come_back_to_the_cpu(tmp_path, way):
    """`map_location` and the saved locations are looked at for rows too."""
    path = tmp_path / "m.pt"
    torch.save(tensors(), path)
    loaded = statedict.load(path, map_location="meta")
    assert {tensor.device.type for tensor in loaded.values()} == {"meta"}


def test_nothing_lands_where_a_checksum_is_wrong(file, way):
    """One bit of one tensor is another: the error names it, and no parameter has changed."""
    with statedict.open(file) as checkpoint:
        place = checkpoint.object["block37_weight"].storage.where.offset
    with open(file, "r+b") as raw:
        raw.seek(place)
        byte = raw.read(1)[0]
        raw.seek(place)
        raw.write(bytes([byte ^ 4]))
    model = model_of(tensors())
    with pytest.raises(ChecksumError, match="block37_weight"):
        statedict.load_state_dict(model, file)
    assert not any(tensor.any() for tensor in model.state_dict().values())
    with pytest.raises(ChecksumError, match="block37_weight"):
        statedict.load(file)
    with statedict.open(file) as checkpoint:
        assert [(found.level, found.where) for found in checkpoint.verify()] == [("error", "block37_weight")]


def test_what_does_not_fit_is_told_as_ever(file, way):
    """Other shapes, missing and unexpected names: the same report, and nothing changed."""
    state = tensors()
    state["block3_weight"] = torch.zeros(7, dtype=torch.int64)
    state["extra"] = torch.zeros(2)
    model = model_of(state)
    with pytest.raises(LoadError, match="size mismatch for block3_weight") as caught:
        statedict.load_state_dict(model, file)
    assert caught.value.report.missing == ["extra"]
    assert not any(tensor.any() for tensor in model.state_dict().values())
    state = tensors()
    state["block0_weight"] = state["block0_weight"].double()
    model = model_of(state)
    report = statedict.load_state_dict(model, file)
    assert [(cast.name, cast.kind) for cast in report.cast] == [("block0_weight", "widening")]
    saved = tensors()
    assert all(torch.equal(tensor.to(saved[name].dtype), saved[name]) for name, tensor in model.state_dict().items())


CHANGES = {
    "another shape": lambda p: setattr(p, "data", p.data.reshape(2, 8)),
    "transposed": lambda p: setattr(p, "data", p.data.t()),
    "another dtype": lambda p: setattr(p, "data", p.data.double()),
    "other memory": lambda p: setattr(p, "data", p.data.clone()),
    "a negative view": lambda p: setattr(p, "data", torch._neg_view(p.data)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_changed_between_two_loads(tmp_path, change):
    """The second load of a layout looks at the model as the first did: what one load gives, two do."""
    state = tensors(shapes=[(4, 4)], dtypes=[torch.float32])
    path = tmp_path / "m.pt"
    torch.save(state, path)
    outcomes = []
    for loads in (0, 1):
        model = model_of(state)
        for _ in range(loads):
            statedict.load_state_dict(model, path)
        changed = model.get_parameter("block5_weight")
        CHANGES[change](changed)
        try:
            statedict.load_state_dict(model, path)
            outcomes.append({name: tensor.resolve_neg().clone() for name, tensor in model.state_dict().items()})
        except RuntimeError as error:  # PyTorch's own, of a negative view
            outcomes.append(str(error))
    if isinstance(outcomes[0], str):
        assert outcomes[0] == outcomes[1]
    else:
        assert all(equal(outcomes[0][name], outcomes[1][name]) for name in state)
        assert torch.equal(outcomes[1]["block5_weight"].float(), state["block5_weight"])


def test_hooks_added_between_two_loads(file):
    """A hook that was added after the first load runs in the second."""
    model = model_of(tensors())
    statedict.load_state_dict(model, file)
    seen = []
    model.register_load_state_dict_post_hook(lambda module, keys: seen.append(keys))
    statedict.load_state_dict(model, file)
    assert len(seen) == 1


def test_tied_parameters_of_the_model(tmp_path):
    """Two names for one parameter, which the file has different values for, are refused in a first load and in others."""
    state = tensors(shapes=[(4, 4)], dtypes=[torch.float32])
    path = tmp_path / "m.pt"
    torch.save(state, path)
    model = model_of(state)
    statedict.load_state_dict(model, path)
    model.block1_weight = model.block0_weight
    with pytest.raises(LoadError, match="differ in the checkpoint"):
        statedict.load_state_dict(model, path)


def test_tensors_that_are_tied_in_the_file(tmp_path, way):
    """Ties among thousands stay ties."""
    state = tensors()
    state["tied"] = state["block100_weight"]
    state["view"] = state["block4_weight"][10:20]
    torch.save(state, tmp_path / "tied.pt")
    loaded = statedict.load(tmp_path / "tied.pt")
    assert loaded["tied"].data_ptr() == loaded["block100_weight"].data_ptr()
    assert loaded["view"].untyped_storage().data_ptr() == loaded["block4_weight"].untyped_storage().data_ptr()
    assert all(equal(loaded[name], state[name]) for name in state)


def test_leaves_can_be_copied(file, way):
    """A copy of a leaf is the leaf, looked at or not."""
    with statedict.open(file) as checkpoint:
        for leaf in list(checkpoint.object.values())[-3:]:
            twin = copy.copy(leaf)
            assert (twin.spec, twin.traits, twin.storage) == (leaf.spec, leaf.traits, leaf.storage)
            assert type(twin) is Leaf
            assert not hasattr(leaf, "__array__")


@pytest.mark.parametrize("seed", range(6))
def test_scattered_copies_in_order(seed):
    """Runs of any sizes go where they are to go; where targets overlap, the last one wins."""
    generator = np.random.default_rng(seed)
    sizes = generator.choice([0, 1, 8, 64, 5000] if seed % 2 else [64], 90)
    block = memoryview(bytearray(generator.bytes(200_000)))
    places = generator.integers(0, 190_000, 90)
    memory = torch.zeros(3_000_000 if seed < 4 else 900, dtype=torch.uint8)
    room = len(memory) // 90 if seed < 4 else 1
    starts = np.arange(90) * room if seed < 4 else generator.integers(0, 900 - 64, 90)
    if seed >= 4:
        sizes = np.minimum(sizes, 64)
    expected = memory.clone().numpy()
    for start, place, size in zip(starts, places, sizes):
        expected[start : start + size] = np.frombuffer(block[place : place + size], np.uint8)
    list(scattered(block, places.tolist(), (memory.data_ptr() + starts).tolist(), sizes.tolist()))
    assert np.array_equal(memory.numpy(), expected)


def test_the_tensors_of_an_optimizer_are_rows(tmp_path):
    """All tensors of a state that has them in small dictionaries are rows of one table, and load alike."""
    parameters = [torch.nn.Parameter(tensor) for tensor in tensors(dtypes=[torch.float32]).values()]
    optimizer = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path = str(tmp_path / "optimizer.pt")
    torch.save(optimizer.state_dict(), path)
    with statedict.open(path) as opened:
        leaves = [leaf for each in opened.object["state"].values() for leaf in each.values()]
        assert rows_of(leaves) is not None
    found, expected = statedict.load(path)["state"], torch.load(path, weights_only=True)["state"]
    assert found.keys() == expected.keys()
    for number, facts in expected.items():
        assert all(equal(found[number][name], tensor) for name, tensor in facts.items())


@pytest.mark.parametrize("key", ["x", "\u00b2", "+0"])
def test_a_key_that_is_not_a_number(tmp_path, key):
    """A storage whose key is not a number is read by itself, among thousands that are."""
    state, first, path = tensors(), io.BytesIO(), tmp_path / "odd.pt"
    torch.save(state, first)
    members, text = unpacked(first.getvalue()), key.encode()
    pickled = members["archive/data.pkl"]
    pickled = pickled.replace(b"X\1\0\0\0" + b"0q", b"X" + bytes([len(text), 0, 0, 0]) + text + b"q", 1)
    members |= {"archive/data.pkl": pickled, f"archive/data/{key}": members.pop("archive/data/0")}
    path.write_bytes(packed(members))
    found = statedict.load(path)
    assert all(equal(found[name], tensor) for name, tensor in state.items())
