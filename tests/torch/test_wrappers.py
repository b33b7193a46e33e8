"""Tensors that wrap others, in every verb: their parts are saved, copied, compared and loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

import statedict
from statedict.errors import FormatError, LoadError, MergeError, SaveError, UnsafeFileError
from statedict.report import _facts as facts
from statedict.state import Compound

from .wrappers import Pair, Rounding, Scaled, Scheme, Wrapper, model, pair, parts_of, scaled

KINDS = {"scaled": scaled, "pair": pair}
SUFFIXES = ("pt", "safetensors")


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=SUFFIXES)
def saved(request, kind, tmp_path):
    """A file with a model whose weight is made of others."""
    path = tmp_path / f"model.{request.param}"
    statedict.save(model(kind(3)), path)
    return path


@pytest.fixture
def allowed():
    with torch.serialization.safe_globals([Scaled, Pair, Scheme, Rounding]):
        yield


def test_a_file_has_the_parts_and_the_recipe(saved, kind):
    """An opened checkpoint has a Compound with the parts by role, and the class as text."""
    found = statedict.open(saved).object["weight"]
    assert isinstance(found, Compound)
    assert found.layout == "wrapper"
    assert found.shape == (2, 3)
    assert found.dtype.name == "float32"
    roles = ["data8", "scale"] if kind is scaled else ["inner.data8", "inner.scale", "shift"]
    assert list(found.parts) == roles
    assert found.facts["class"] == f"tests.torch.wrappers:{type(kind()).__name__}"


def test_a_live_tensor_has_the_same_compound(saved, kind):
    """The Compound of a live tensor is that of a file: same facts, same fingerprint, no difference."""
    live, read = statedict.state_dict(model(kind(3))), statedict.open(saved).state_dict()
    assert live.leaf("weight").facts == read.leaf("weight").facts
    assert live.fingerprint() == read.fingerprint()
    assert not statedict.diff(live, read)
    assert statedict.diff(model(kind(4)), read).values == ("weight",)


def test_loading_copies_part_by_part(saved, kind):
    """A load writes into the model's own parts: no class is called, and the tensors stay the same objects."""
    made = model(kind(5))
    weight = made.weight
    inner = weight.data8 if kind is scaled else weight.shift
    report = statedict.load_state_dict(made, saved)
    assert str(report) == "<All keys matched successfully>"
    assert made.weight is weight
    assert (weight.data8 if kind is scaled else weight.shift) is inner
    assert parts_of(weight) == parts_of(kind(3))


def test_assigning_uses_the_models_class(saved, kind):
    """`assign=True` makes a new tensor by the class of the model's tensor; nothing has to be allowed."""
    made = model(kind(5))
    weight = made.weight
    statedict.load_state_dict(made, saved, assign=True)
    assert made.weight is not weight
    assert type(made.weight) is type(weight)
    assert isinstance(made.weight, torch.nn.Parameter)
    assert not made.weight.requires_grad
    assert parts_of(made.weight) == parts_of(kind(3))


def test_assigning_to_a_model_on_the_meta_device(saved, kind):
    """Parts on the meta device are replaced by those in the file."""
    with torch.device("meta"):
        made = model(kind(5))
    statedict.load_state_dict(made, saved, assign=True)
    assert parts_of(made.weight) == parts_of(kind(3))


def test_loading_without_the_class_gives_data(saved):
    """`load` returns a Compound of PyTorch tensors if the class is not allowed, though it is imported."""
    found = statedict.load(saved)["weight"]
    assert isinstance(found, Compound)
    assert statedict.load(saved, backend="numpy")["weight"].facts == found.facts


def test_loading_an_allowed_class_gives_the_tensor(saved, kind, allowed):
    """`load` makes the tensor if the program has allowed its class and those in its attributes."""
    found = statedict.load(saved)["weight"]
    assert type(found) is type(kind())
    assert parts_of(found) == parts_of(kind(3))
    plain = torch.nn.Module()
    plain.weight, plain.bias = torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2))
    statedict.load_state_dict(plain, saved, assign=True)
    assert type(plain.weight) is type(kind())


def test_torch_loads_what_is_saved(kind, tmp_path, allowed):
    """A `.pt` file has the bytes that torch.save writes, also if it was written from another file."""
    made = model(kind(3))
    torch.save(made.state_dict(), tmp_path / "stock.pt")
    statedict.save(made, tmp_path / "ours.pt")
    statedict.save(made, tmp_path / "parts.safetensors")
    for source in ("stock.pt", "parts.safetensors"):
        statedict.save(statedict.open(tmp_path / source).state_dict(), tmp_path / f"{source}.pt")
    assert pickle_in(tmp_path / "ours.pt") == pickle_in(tmp_path / "stock.pt") == pickle_in(tmp_path / "stock.pt.pt")
    for name in ("ours.pt", "stock.pt.pt", "parts.safetensors.pt"):
        assert parts_of(torch.load(tmp_path / name)["weight"]) == parts_of(made.weight)


def pickle_in(path):
    with zipfile.ZipFile(path) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))


def test_other_readers_see_the_parts(kind, tmp_path):
    """safetensors' own reader sees each part under `weight.role`."""
    statedict.save(model(kind(3)), tmp_path / "x.safetensors")
    roles = list(statedict.state_dict(model(kind(3))).leaf("weight").parts)
    assert sorted(safetensors.torch.load_file(tmp_path / "x.safetensors")) == ["bias", *(f"weight.{r}" for r in roles)]


def test_parts_stay_in_one_shard(kind, tmp_path):
    """In shards, the index names the parts; they are together, and are read as one tensor."""
    path = tmp_path / "x.safetensors"
    made = torch.nn.ModuleList(model(kind(number)) for number in range(4))
    statedict.save(made, path, max_shard_size=60)
    index = json.loads((tmp_path / "x.safetensors.index.json").read_text())["weight_map"]
    roles = list(statedict.state_dict(made).leaf("0.weight").parts)
    assert all(len({index[f"{n}.weight.{role}"] for role in roles}) == 1 for n in range(4))
    assert len(set(index.values())) > 1
    other = torch.nn.ModuleList(model(kind(9)) for _ in range(4))
    statedict.load_state_dict(other, f"{path}.index.json")
    assert not statedict.diff(other, made)
    statedict.save(made, tmp_path / "x.bin", max_shard_size=60)
    assert not statedict.diff(statedict.open(tmp_path / "x.bin.index.json").state_dict(), made)


def test_a_snapshot_is_independent_and_keeps_ties(kind):
    """A snapshot copies the parts; tensors that share them share them in the copy."""
    made = model(kind(3))
    made.again = made.weight
    state = made.state_dict()
    assert state["weight"] is not state["again"]
    copy = statedict.snapshot(state)
    before = parts_of(made.weight)
    first, second = (inner(copy[name]) for name in ("weight", "again"))
    first[:] = 7
    assert second.tolist() == first.tolist()
    assert parts_of(made.weight) == before
    assert statedict.StateDict(copy).tied == [("weight", "again")]


def inner(tensor):
    return inner(tensor.inner) if isinstance(tensor, Pair) else tensor.data8


def test_live_states_are_loaded_by_their_parts(kind):
    """A live state is copied part by part too: the class needs no `copy_`."""
    made = model(kind(5))
    statedict.load_state_dict(made, model(kind(3)))
    assert parts_of(made.weight) == parts_of(kind(3))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_manager_saves_and_resumes(kind, tmp_path, asynchronous):
    """CheckpointManager saves such a model and resumes it."""
    with statedict.CheckpointManager(tmp_path, asynchronous=asynchronous) as manager:
        manager.save(1, model=model(kind(3)))
        manager.wait()
        made = model(kind(5))
        manager.resume(model=made)
    assert parts_of(made.weight) == parts_of(kind(3))


def test_a_damaged_part_changes_nothing(saved, kind):
    """If a checksum does not match, all parts keep their values."""
    raw = bytearray(saved.read_bytes())
    place = raw.index(bytes([3] * 6))
    raw[place] ^= 1
    saved.write_bytes(raw)
    made = model(kind(5))
    with pytest.raises(FormatError, match=r"changed since|CRC-32"):
        statedict.load_state_dict(made, saved)
    assert parts_of(made.weight) == parts_of(kind(5))


def test_one_that_does_not_fit_is_refused_in_words(saved, kind):
    """A class, a shape or an attribute that differs is named, and nothing is changed."""
    others = {
        "plain torch.float32 tensor, and the checkpoint a": torch.zeros(2, 3),
        "its part|the model has a": scaled(5, dtype=torch.int16),
    }
    if kind is scaled:
        others["'scheme' are not the same in the model"] = scaled(5, bits=4)
    for text, weight in others.items():
        made = model(weight)
        with pytest.raises(LoadError, match=text):
            statedict.load_state_dict(made, saved)
        assert not made.bias.any()


def test_other_shapes_are_refused(saved, kind):
    """The shape is compared as for any parameter."""
    if kind is scaled:
        with pytest.raises(LoadError, match="size mismatch for weight"):
            statedict.load_state_dict(model(scaled(5, shape=(3, 2))), saved)


def test_a_plain_tensor_does_not_fit(tmp_path, kind):
    """A plain tensor for a parameter that wraps others is refused, with what to do."""
    statedict.save(model(torch.ones(2, 3)), tmp_path / "plain.pt")
    for source in (tmp_path / "plain.pt", model(torch.ones(2, 3))):
        with pytest.raises(LoadError, match="a plain tensor: load it before the model is converted"):
            statedict.load_state_dict(model(kind(5)), source)


def test_an_unknown_class_cannot_be_assigned_to_a_plain_parameter(saved):
    """`assign=True` needs the model's class or an allowed one."""
    with pytest.raises(LoadError, match="or import the library of that class"):
        statedict.load_state_dict(model(torch.zeros(2, 3)), saved, assign=True)


def test_swapping_uses_the_models_class(saved, kind):
    """With swap_tensors, too, the value is made by the class of the model's tensor, or refused."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with pytest.raises(LoadError, match="convert the model first"):
            statedict.load_state_dict(model(torch.zeros(2, 3)), saved)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_merging(kind):
    """Tensors of several parts are taken from the first state if all are equal, and refused otherwise."""
    first, second = model(kind(3)), model(kind(3))
    torch.nn.init.ones_(second.bias)
    merged = statedict.merge([first, second])
    assert merged["bias"].tolist() == [0.5, 0.5]
    assert not statedict.diff({"w": merged["weight"]}, {"w": first.weight})
    with pytest.raises(
        MergeError,
        match=r"'weight' is not a strided tensor in every source \(wrapper in one of them, and not equal in all\)",
    ):
        statedict.merge([first, model(kind(4))])
    union = statedict.merge([{"w": first.weight}, {"w": first.weight.detach(), "b": first.bias}], "union")
    assert list(union) == ["w", "b"]


def test_spec_tells_what_to_do():
    """A tensor of several parts has no strided spec; the error names `leaf`."""
    with pytest.raises(TypeError, match=r"'weight' is a wrapper tensor of several parts .* see leaf\('weight'\)"):
        statedict.state_dict(model(scaled())).spec("weight")


def test_names_that_collide_are_refused(tmp_path):
    """A part must not have the name of another tensor."""
    with pytest.raises(SaveError, match=r"'w\.scale' is both a tensor and a part of another"):
        statedict.save({"w.scale": torch.ones(1), "w": scaled()}, tmp_path / "x.safetensors")


def test_attributes_that_are_not_data_are_refused_by_name(tmp_path):
    """A tensor with an attribute that is not plain data cannot be saved as parts; nothing is pickled."""
    for value in (np.ones(1), np.float32(1), {1, 2}, b"x", 1 << 70, (number for number in ())):
        weight = scaled()
        weight.extra = value
        with pytest.raises(SaveError, match="'weight' is a Scaled whose parts and attributes are not plain data"):
            statedict.save({"weight": weight}, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_classes_without_unflatten_are_still_copied_by_their_own_clone():
    """A snapshot of a class that cannot be made of other parts uses its `clone`."""

    class Cloned(torch.Tensor):
        @staticmethod
        def __new__(cls, data):
            return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=data.dtype)

        def __init__(self, data):
            self.data8 = data

        def __tensor_flatten__(self):
            return ["data8"], None

        @classmethod
        def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
            return Cloned(function(args[0].data8))

    made = Cloned(torch.ones(2))
    copy = statedict.snapshot({"w": made})["w"]
    made.data8.zero_()
    assert copy.data8.tolist() == [1, 1]


def test_inspect_shows_class_and_parts(saved, kind):
    """`inspect` shows the class and the parts of such a tensor."""
    fact = facts.tensors(statedict.open(saved).state_dict())[0]
    assert fact["layout"] == "wrapper"
    assert fact["class"] == f"tests.torch.wrappers.{type(kind()).__name__}"
    assert facts.remark(fact) == f"{type(kind()).__name__} of {', '.join(fact['parts'])}"


def test_tied_parameters_need_equal_values(kind):
    """Two names of one tensor may have equal values."""
    made = model(kind(5))
    made.again = made.weight
    same = {"weight": kind(3), "again": kind(3), "bias": torch.zeros(2)}
    statedict.load_state_dict(made, statedict.StateDict(same))
    assert parts_of(made.weight) == parts_of(kind(3))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tied_parameters_with_different_values_are_refused(kind, suffix, tmp_path):
    """A file with different values for two names of one tensor is refused, as for any tensor."""
    path = tmp_path / f"x.{suffix}"
    statedict.save({"weight": kind(3), "again": kind(4), "bias": torch.zeros(2)}, path)
    made = model(kind(5))
    made.again = made.weight
    with pytest.raises(LoadError, match="differ in the checkpoint"):
        statedict.load_state_dict(made, path)
    assert parts_of(made.weight) == parts_of(kind(5))


def test_parts_go_to_their_devices(saved, kind, allowed):
    """`map_location` places each part."""
    assert statedict.load(saved, map_location="meta")["weight"].is_meta
    with torch.serialization.safe_globals([]):
        torch.serialization.clear_safe_globals()
        found = statedict.load(saved, map_location="meta")["weight"]
    assert {part.storage.location for part in found.parts.values()} == {"meta"}


def test_a_state_of_live_tensors_stays_one(kind):
    """`torch()` keeps live tensors that wrap others as they are; `numpy()` gives their parts."""
    weight = kind(3)
    state = statedict.StateDict({"weight": weight})
    assert state.torch()["weight"] is weight
    assert isinstance(state.numpy()["weight"], Compound)


class Stored(Wrapper):
    """A class that keeps its parts in a dict."""

    PARTS = ("data8", "scale")

    def __init__(self, data8, scale):
        self.store = {"data8": data8, "scale": scale}

    data8 = property(lambda self: self.store["data8"])
    scale = property(lambda self: self.store["scale"])


def test_parts_in_containers_are_copied(tmp_path):
    """Parts that a class keeps elsewhere are named by where they are; its class is not asked to make it of them."""

    def stored(number):
        return model(Stored(torch.full((2, 3), number), torch.ones(1)))

    path = tmp_path / "x.safetensors"
    statedict.save(stored(3), path)
    assert list(statedict.open(path).object["weight"].parts) == ["store.data8", "store.scale"]
    made = stored(5)
    statedict.load_state_dict(made, path)
    assert parts_of(made.weight) == parts_of(stored(3).weight)
    with pytest.raises(LoadError, match="so load it without assign=True"):
        statedict.load_state_dict(stored(5), path, assign=True)


def test_nothing_needs_torch(saved, kind, tmp_path):
    """Without PyTorch, parts and recipe are read, and a file is converted into each of the formats."""
    code = (
        "import sys; sys.modules['torch'] = None; import statedict as sd; path, folder = sys.argv[1:]; "
        "state = sd.open(path).state_dict(); "
        "[sd.save(state, f'{folder}/again.{suffix}') for suffix in ('pt', 'safetensors')]; "
        "print(sorted(sd.load(path)['weight'].parts))"
    )
    done = subprocess.run([sys.executable, "-c", code, saved, tmp_path], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == f"{sorted(statedict.open(saved).object['weight'].parts)}\n"
    for suffix in SUFFIXES:
        made = model(kind(5))
        statedict.load_state_dict(made, tmp_path / f"again.{suffix}")
        assert parts_of(made.weight) == parts_of(kind(3))


# hostile files


class Trap(Wrapper):
    """A class that must not be called."""

    PARTS = ("data8", "scale")

    @staticmethod
    def __new__(cls, *args):
        raise AssertionError("called")

    __tensor_unflatten__ = __setstate__ = __new__


def rewritten(path, change):
    """Change the recipe of `weight` in a file of ours, and its checksum with it."""
    from statedict.formats.safetensors._annotations import close_header

    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    said = header["__metadata__"]
    recipes = json.loads(said["statedict.wrappers"])
    said["statedict.wrappers"] = json.dumps(change(recipes) or recipes)
    said["statedict.header"] = "0" * 8
    order = {"statedict.header": said.pop("statedict.header"), **said}
    rest = {name: entry for name, entry in header.items() if name != "__metadata__"}
    text = f'{{"__metadata__" :{json.dumps(order, separators=(",", ":"))},{json.dumps(rest)[1:]}'.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + close_header(text) + body)


LIES = {
    "missing part": lambda r: r["weight"]["state"].update(more={"$part": "more"}),
    "part used twice": lambda r: r["weight"]["state"].update(more={"$part": "scale"}),
    "part of two tensors": lambda r: r.update({"weight.x": r["weight"]}),
    "name of a tensor": lambda r: r.update(bias=r.pop("weight")),
    "no state": lambda r: r["weight"].pop("state"),
    "state is a list": lambda r: r["weight"].update(state=[1]),
    "state is a part": lambda r: r["weight"].update(state={"$part": "scale"}),
    "reserved attribute": lambda r: r["weight"]["state"].update(__class__={"$name": "os:system"}),
    "grad": lambda r: r["weight"]["state"].update(grad={"$part": "scale"}),
    "negative size": lambda r: r["weight"].update(shape=[-1, 3]),
    "huge size": lambda r: r["weight"].update(shape=[1 << 70, 3]),
    "other strides": lambda r: r["weight"].update(strides=[1]),
    "bad dtype": lambda r: r["weight"].update(dtype="float7"),
    "bad layout": lambda r: r["weight"].update(layout="system"),
    "bad class": lambda r: r["weight"].update({"class": "os"}),
    "class is a number": lambda r: r["weight"].update({"class": 3}),
    "unknown tag": lambda r: r["weight"]["state"].update(x={"$call": "os:system"}),
    "two tags": lambda r: r["weight"]["state"].update(x={"$tuple": [], "$size": []}),
    "malformed object": lambda r: r["weight"]["state"].update(x={"$object": "os:system", "args": "rm"}),
    "malformed tuple": lambda r: r["weight"]["state"].update(x={"$tuple": 3}),
    "malformed size": lambda r: r["weight"]["state"].update(x={"$size": ["a"]}),
    "malformed dict": lambda r: r["weight"]["state"].update(x={"$dict": [[[], 1]]}),
    "malformed number": lambda r: r["weight"]["state"].update(x={"$float": "1e9"}),
    "malformed dtype": lambda r: r["weight"]["state"].update(x={"$dtype": "os"}),
    "malformed layout": lambda r: r["weight"]["state"].update(x={"$layout": "os"}),
    "malformed device": lambda r: r["weight"]["state"].update(x={"$device": "a b:c"}),
    "device is a number": lambda r: r["weight"]["state"].update(x={"$device": 3}),
    "malformed name": lambda r: r["weight"]["state"].update(x={"$name": "os.system"}),
    "malformed inner": lambda r: r["weight"]["state"].update(x={"$wrapper": {}}),
    "recipe is a list": lambda r: r.update(weight=[]),
    "recipes are a list": lambda r: [r],
    "too deep": lambda r: r["weight"]["state"].update(x=json.loads("[" * 200 + "]" * 200)),
}


@pytest.mark.parametrize("lie", LIES)
def test_recipes_that_lie_are_refused(lie, tmp_path):
    """A malformed recipe is a FormatError when the file is opened, which names the file."""
    path = tmp_path / "x.safetensors"
    statedict.save(model(scaled(3)), path)
    rewritten(path, LIES[lie])
    with pytest.raises(FormatError, match=r"x\.safetensors"):
        statedict.open(path)


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "tests.torch.test_wrappers:Trap", "no.such:Class"])
def test_classes_in_a_recipe_are_only_text(name, tmp_path):
    """A class that is not allowed is never called, imported or not; into a model it does not fit."""
    path = tmp_path / "x.safetensors"
    statedict.save(model(scaled(3)), path)
    rewritten(path, lambda recipes: recipes["weight"].update({"class": name}))
    assert isinstance(statedict.load(path)["weight"], Compound)
    with pytest.raises(LoadError, match=r"the model has a tests\.torch\.wrappers\.Scaled and the checkpoint a"):
        statedict.load_state_dict(model(scaled(5)), path)
    with pytest.raises(LoadError, match="convert the model first"):
        statedict.load_state_dict(model(torch.zeros(2, 3)), path, assign=True)


def test_a_function_that_would_run_is_not_written_to_a_pickle(tmp_path):
    """A recipe that names a dangerous function is refused by the writer of pickles."""
    path = tmp_path / "x.safetensors"
    statedict.save(model(scaled(3)), path)
    rewritten(path, lambda recipes: recipes["weight"].update({"class": "os:system"}))
    with pytest.raises(SaveError, match="system"):
        statedict.save(statedict.open(path).state_dict(), tmp_path / "y.pt")


def test_an_allowed_class_checks_its_parts(tmp_path, allowed):
    """The shape that a file claims is compared with that of the tensor that the class makes of the parts."""
    path = tmp_path / "x.safetensors"
    statedict.save(model(scaled(3)), path)
    rewritten(path, lambda recipes: recipes["weight"].update(shape=[20, 30], strides=[30, 1]))
    with pytest.raises(FormatError, match=r"make a tensor of shape \[2, 3\], but the file says \[20, 30\]"):
        statedict.load(path)
    rewritten(path, lambda r: r["weight"]["state"].update(other=r["weight"]["state"].pop("scale")) or r)
    with pytest.raises(FormatError, match=r"missing|do not fit together"):
        statedict.load(path)


def test_an_allowed_class_that_is_not_a_tensor_is_not_called(tmp_path):
    """Only a subclass of Tensor can wrap others."""

    path = tmp_path / "x.safetensors"
    statedict.save(model(scaled(3)), path)
    rewritten(path, lambda recipes: recipes["weight"].update({"class": "tests.torch.wrappers:Scheme"}))
    with torch.serialization.safe_globals([Scheme, Rounding]), pytest.raises(FormatError, match="do not fit together"):
        statedict.load(path)


def test_dangerous_classes_in_a_pickle_are_refused(tmp_path):
    """A `.pt` file whose recipe names a function that would run code is refused by `load`, as before."""

    class Evil:
        def __reduce__(self):
            import os

            return os.system, ("true",)

    weight = scaled(3)
    weight.extra = Evil()
    torch.save({"weight": weight}, tmp_path / "x.pt")
    with pytest.raises(UnsafeFileError, match="system"):
        statedict.load(tmp_path / "x.pt")
