"""Ties through everything that makes a state of a state, and through files."""

import pytest

import statedict

torch = pytest.importorskip("torch")


@pytest.fixture
def tied():
    """The state of a model whose head is its embedding."""
    embedding, head = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 50, bias=False)
    head.weight = embedding.weight
    return statedict.state_dict(torch.nn.ModuleDict({"e": embedding, "h": head}))


MAKE = {
    "to": lambda s: s.to("bfloat16"),
    "to some": lambda s: s.to("bfloat16", only="*.weight"),
    "twice": lambda s: s.to("float64").to("float16"),
    "numpy": lambda s: s.numpy(),
    "numpy, cast": lambda s: s.numpy().to("float64"),
    "torch": lambda s: s.to("float64").torch(),
    "snapshot": statedict.snapshot,
    "select": lambda s: s.select("*"),
    "rename": lambda s: s.rename({"e.other": "x"}),
    "a key map": lambda s: statedict.KeyMap("x.{*p} -> y.{*p}").rename(s),
    "average": lambda s: statedict.merge([s, s, s]),
    "slerp": lambda s: statedict.merge([s, s], "slerp"),
    "union": lambda s: statedict.merge([s], "union"),
}


@pytest.mark.filterwarnings("ignore:.*does not match any name")
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_states_of_states_keep_ties(tied, make):
    """States that are made of a state keep its ties."""
    made = make(tied)
    assert made.tied == tied.tied == [("e.weight", "h.weight")]
    first, second = (torch.as_tensor(value) for value in made.torch().values())
    assert first.data_ptr() == second.data_ptr()


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npz"])
def test_files_of_cast_states_keep_ties(tied, suffix, tmp_path):
    """A tied tensor that was cast is saved once, and loads as one."""
    path = tmp_path / f"state.{suffix}"
    statedict.save(tied.to("bfloat16"), path)
    with statedict.open(path) as checkpoint:
        assert checkpoint.state_dict().tied == tied.tied
        assert checkpoint.state_dict().spec("h.weight").dtype.name == "bfloat16"


def test_views_of_one_storage_that_are_disjoint_are_not_tied(tmp_path):
    """Fused RNN weights, saved apart and together, are equal states without ties."""
    flat = torch.arange(20.0)
    state = statedict.StateDict({"rtorch.nn.weight": flat[:12].view(3, 4), "rtorch.nn.bias": flat[12:]})
    assert state.tied == []
    statedict.save(state, tmp_path / "a.pt")
    statedict.save(state, tmp_path / "a.safetensors")
    assert not statedict.diff(tmp_path / "a.pt", tmp_path / "a.safetensors")
