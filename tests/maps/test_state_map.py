"""Maps as values: what they report, how they are inverted, and how they are used by the rest of the package."""

import warnings

import numpy as np
import pytest

import statedict
from statedict import maps
from statedict.errors import CollisionError, MapError
from statedict.maps import StateMap
from statedict.maps._map_file import parse_map

LLAMA = {
    "layers.0.attention.wq.weight": np.arange(32.0).reshape(8, 4),
    "layers.0.attention.wv.weight": np.ones((8, 4)),
    "norm.weight": np.ones(4),
}


def told(function, *arguments):
    """The result, and the texts of the warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = function(*arguments)
    return result, [str(warning.message) for warning in found]


def test_it_prints_and_inverts():
    """A map prints its rules with the numbers of its parameters; the inverse of its inverse is itself."""
    one = maps.load("llama-hf", head_dim=4)
    assert "self_attn.q_proj.weight | deinterleave 0 4" in str(one)
    assert "layers.{i}.attention.wq.weight | interleave 0 4" in str(one.inverse)
    assert one.inverse.inverse is one
    assert (one.inverse.inverted, one.inverse.left, one.inverse.right) == (True, one.right, one.left)


def test_rules_that_match_nothing_are_not_reported():
    """A map covers all models of a family, so a model without biases does not cause a warning."""
    made, notes = told(maps.load("llama-hf", head_dim=4).rename, LLAMA)
    assert sorted(made) == [
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.norm.weight",
    ]
    assert notes == []
    assert made.numpy()["model.layers.0.self_attn.q_proj.weight"][:, 0].tolist() == [0, 8, 4, 12, 16, 24, 20, 28]


def test_unknown_and_ignored_names_are_reported():
    """A name without a rule is kept and reported; one that the map leaves out is reported with the reason."""
    state = LLAMA | {"rope.freqs": np.ones(2), "extra.weight": np.ones(1)}
    made, notes = told(maps.load("llama-hf", head_dim=4).rename, state)
    assert "extra.weight" in made
    assert "rope.freqs" not in made
    assert notes == [
        "llama-hf does not have a rule for 1 tensor ('extra.weight'); unchanged",
        "llama-hf leaves out 1 tensor ('rope.freqs'): the model computes the frequencies of its rotary embedding",
    ]


def test_names_of_wrappers():
    """A checkpoint of a compiled or parallel model is converted like that of the model itself."""
    wrapped = {f"_orig_mod.module.{name}": value for name, value in LLAMA.items()}
    one = maps.load("llama-hf", head_dim=4)
    assert list(one.rename(wrapped)) == list(one.rename(LLAMA))
    with pytest.raises(CollisionError):
        one.rename(LLAMA | wrapped)


def test_the_other_direction_is_named():
    """If the names are those of the other side, or of neither, the error says so."""
    one = maps.load("llama-hf", head_dim=4)
    with pytest.raises(
        MapError, match=r"these are the names of transformers, not of Meta Llama, Mistral: add --inverse"
    ):
        one.rename(one.rename(LLAMA))
    with pytest.raises(MapError, match=r"no rule matches any of 1 tensor \('x'\); it converts the names of Meta"):
        one.rename({"x": np.ones(1)})
    assert len(one.rename({})) == 0


def test_another_model_is_not_called_the_other_direction():
    """The inverse is advised only if it knows most of the names: `lm_head.weight` in common is not enough."""
    names = ["transformer.h.0.ln_1.weight", "transformer.h.0.attn.c_attn.weight", "lm_head.weight"]
    with pytest.raises(MapError, match=r"no rule matches any of 3 tensors .*; it converts the names of Meta Llama"):
        maps.load("llama-hf", head_dim=4).rename(dict.fromkeys(names, np.ones((4, 4))))


def test_further_rules():
    """Added rules apply to names that no rule of the map matches."""
    one = maps.load("llama-hf", head_dim=4)
    for some, old, new in ((one, LLAMA, "model.norm.weight"), (one.inverse, one.rename(LLAMA), "norm.weight")):
        made, notes = told(some.extended("extra -> lost").rename, {**old, "extra": np.ones(1)})
        assert {"lost", new} <= set(made)
        assert notes == []


def test_a_map_loads_into_a_model():
    """`load_state_dict` takes a map as renaming rules; what the map leaves out is a note, not an unexpected name."""
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"model": torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(4, bias=False)})})
    state = {"norm.weight": np.full(4, 3.0, "f4"), "rope.freqs": np.ones(2, "f4")}
    report = statedict.load_state_dict(model, state, rename=maps.load("llama-hf", head_dim=4))
    assert report.ok
    assert ["leaves out" in note for note in report.notes] == [True]
    assert model["model"]["norm"].weight.tolist() == [3.0] * 4


def test_a_map_reads_no_tensor():
    """Converting is lazy: a tensor is read when it is used."""

    class File:
        def read_into(self, reads, *, verify=True):
            raise AssertionError("read")

        def verify(self, storages): ...

        def view(self, storage, *, writable=False):
            return None

    from statedict.state import Leaf, Storage, contiguous, dtype

    leaf = Leaf(contiguous(dtype("float32"), (8, 4)), Storage(File(), "wq", 128))
    made = maps.load("llama-hf", head_dim=4).rename({"layers.0.attention.wq.weight": leaf})
    assert made.spec("model.layers.0.self_attn.q_proj.weight").shape == (8, 4)
    with pytest.raises(AssertionError, match="read"):
        _ = made.numpy()["model.layers.0.self_attn.q_proj.weight"]


def test_a_plain_list_of_rules():
    """A file with rules only is as lenient as a KeyMap: other names stay, and a rule that matches nothing is reported."""
    one = StateMap(parse_map('rules = ["a -> b", "c -> d"]', "names.toml"), {})
    made, notes = told(one.rename, {"a": np.ones(1), "x": np.ones(1)})
    assert sorted(made) == ["b", "x"]
    assert notes == ["'c -> d' does not match any name"]
