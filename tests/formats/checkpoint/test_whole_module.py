"""A module pickled whole gives the state dict that its `state_dict()` would have given, without its classes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from contextlib import ExitStack

import pytest

from statedict.formats.checkpoint._roots import is_module, state_of_module, version_of
from statedict.state import Opaque, read_array

torch = pytest.importorskip("torch")
nn = torch.nn


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.register_buffer("nothing", None)
        self.register_parameter("absent", None)
        self.weight = nn.Parameter(torch.ones(2, 2))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = self.first
        self.tied = nn.Linear(2, 2)
        self.tied.weight = self.first.weight
        self.empty = None
        self.none: nn.Module | None
        self.register_module("none", None)


MODELS = {
    "linear": lambda: nn.Linear(2, 3),
    "norms": lambda: nn.Sequential(
        nn.BatchNorm2d(3), nn.InstanceNorm2d(3, affine=True, track_running_stats=True), nn.LayerNorm(3)
    ),
    "recurrent": lambda: nn.LSTM(2, 3, num_layers=2, bidirectional=True),
    "attention": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2, enable_nested_tensor=False),
    "containers": lambda: nn.ModuleDict(
        {"a": nn.ModuleList([nn.Linear(1, 1)]), "b": nn.ParameterList([torch.ones(2)])}
    ),
    "buffers": Buffers,
    "shared": Shared,
    "no parameters": lambda: nn.Sequential(nn.ReLU(), nn.Flatten()),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_what_state_dict_gives(formats_of, name):
    """Names, order, elements, ties and metadata are those of `state_dict()`."""
    torch.manual_seed(0)
    model = MODELS[name]()
    expected = model.state_dict()
    found = state_of_module(formats_of(model))
    assert list(found) == list(expected)
    assert dict(found._metadata) == dict(expected._metadata)
    for key, leaf in found.leaves():
        assert read_array(leaf).tolist() == expected[key].tolist()
    ties = {leaf.storage.key for _, leaf in found.leaves()}
    assert len(ties) == len({tensor.untyped_storage()._cdata for tensor in expected.values()})


@pytest.fixture(name="formats_of")
def formats_of_fixture(tmp_path):
    """The inert tree of a value that torch.save wrote."""
    from statedict import formats

    with ExitStack() as opened:

        def saved(value: object) -> object:
            torch.save(value, tmp_path / "x.pt")
            return opened.enter_context(formats.open(tmp_path / "x.pt")).object

        yield saved


def test_old_modules_have_only_persistent_buffers(formats_of):
    """Before torch 1.6 all buffers were saved."""
    model = Buffers()
    del model.__dict__["_non_persistent_buffers_set"]
    assert list(state_of_module(formats_of({"m": model})["m"])) == ["weight", "kept", "hidden"]


def test_versions_are_those_of_torchs_classes():
    """The versions of PyTorch's own modules in `_metadata` are known by the names of their classes."""
    wrong = {}
    for package in (torch.nn.modules, torch.ao.nn, torch.ao.quantization):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, kind in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
                if issubclass(kind, nn.Module) and not kind.__name__.startswith("_") and kind.__module__ == info.name:
                    known = version_of(Opaque(kind.__module__, kind.__name__, ()))
                    if known != kind._version:
                        wrong[f"{kind.__module__}.{kind.__name__}"] = (known, kind._version)
    abstract = {"torch.ao.quantization.observer.UniformQuantizationObserverBase"}
    assert wrong.keys() <= abstract


def test_only_values_with_the_three_stores_are_modules():
    """A value is a module only if it has parameters, buffers and modules."""
    assert not is_module({"_parameters": {}, "_buffers": {}, "_modules": {}})
    assert not is_module(Opaque("torch.nn", "Linear"))
    half = Opaque("torch.nn", "Linear", (), new=True)
    half.state = {"_parameters": {}, "_buffers": {}}
    assert not is_module(half)
    half.state = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    assert is_module(half)
    half.state = {"_parameters": {}, "_buffers": {}, "_modules": {}, "_version": 7}
    assert version_of(half) == 7
