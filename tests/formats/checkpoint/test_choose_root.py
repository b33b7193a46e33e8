"""What a caller's `root=` means: for modules and for optimizers, through mappings, lists and tuples alike."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import statedict
from statedict.errors import RootError
from statedict.formats import choose_part, choose_root, find_roots


def trained():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.25)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return model, optimizer


MODEL, OPTIMIZER = trained()
TREES = {
    "Lightning": {"state_dict": MODEL.state_dict(), "optimizer_states": [OPTIMIZER.state_dict()]},
    "one level down": {"app": {"model": MODEL.state_dict(), "optim": OPTIMIZER.state_dict()}},
    "a tuple": (MODEL.state_dict(), OPTIMIZER.state_dict()),
    "numbers for keys": {0: MODEL.state_dict(), 1: OPTIMIZER.state_dict()},
    "a slash in a key": {"a/b": {"c": OPTIMIZER.state_dict()}, "a": {"b": MODEL.state_dict()}},
    "far down": {"model": MODEL.state_dict(), "x": {"y": {"z": [None, {"o": OPTIMIZER.state_dict()}]}}},
    "an optimizer's own": OPTIMIZER.state_dict(),
}


def fresh():
    return torch.optim.Adam(nn.Linear(2, 2).parameters(), lr=9.0)


def assert_loaded(optimizer):
    assert optimizer.param_groups[0]["lr"] == 0.25
    for ours, theirs in zip(optimizer.param_groups[0]["params"], MODEL.parameters()):
        assert torch.equal(optimizer.state[ours]["exp_avg"], OPTIMIZER.state[theirs]["exp_avg"])


@pytest.mark.parametrize("name", TREES)
def test_every_root_that_is_listed_can_be_used(tmp_path, name):
    """Each listed root works from a file, an open Checkpoint and the tree itself; an optimizer's also as a
    StateDict."""
    torch.save(TREES[name], tmp_path / "run.pt")
    with statedict.open(tmp_path / "run.pt") as checkpoint:
        for root, state in checkpoint.roots.items():
            for source in (tmp_path / "run.pt", checkpoint, TREES[name]):
                if "param_groups" in state:
                    optimizer = fresh()
                    statedict.load_state_dict(optimizer, source, root=root)
                    assert_loaded(optimizer)
                else:
                    assert statedict.load_state_dict(nn.Linear(2, 2), source, root=root).loaded
            if "param_groups" in state:
                optimizer = fresh()
                assert statedict.load_state_dict(optimizer, checkpoint.state_dict(root)).ok
                assert_loaded(optimizer)


@pytest.mark.parametrize("name", TREES)
def test_an_optimizers_state_is_found(tmp_path, name):
    """`root="auto"` looks for an optimizer's state as deep as for a model's."""
    torch.save(TREES[name], tmp_path / "run.pt")
    for source in (tmp_path / "run.pt", TREES[name]):
        optimizer = fresh()
        statedict.load_state_dict(optimizer, source)
        assert_loaded(optimizer)


def test_the_nearest_optimizer_is_meant():
    """Of several optimizers the only one nearest to the top is chosen; if there are two, the error lists the
    choices."""
    state = OPTIMIZER.state_dict()
    statedict.load_state_dict(optimizer := fresh(), {"optimizer": state, "ema": {"optimizer": state | {"state": {}}}})
    assert_loaded(optimizer)
    with pytest.raises(RootError, match=r"several parts of the source fit\. Available: 'a/o', 'b/o'"):
        statedict.load_state_dict(fresh(), {"a": {"o": state}, "b": {"o": state}})


NESTED = {"model": {"language_model": {"encoder": nn.Linear(2, 2).state_dict(), "head": nn.Linear(2, 1).state_dict()}}}


def test_nested_state_dicts_are_read_with_dotted_names(tmp_path):
    """A root that is given and holds only nested dicts of tensors is one state, in order; from a file and from a mapping."""
    torch.save(NESTED, tmp_path / "run.pt")
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    for source in (tmp_path / "run.pt", NESTED):
        assert statedict.load_state_dict(model, source, root="model/language_model").ok
    names = ["language_model.encoder.weight", "language_model.encoder.bias"]
    names += ["language_model.head.weight", "language_model.head.bias"]
    with statedict.open(tmp_path / "run.pt") as checkpoint:
        assert list(checkpoint.state_dict("model")) == names
        assert list(checkpoint.state_dict("")) == [f"model.{name}" for name in names]
    assert torch.equal(model["head"].weight, NESTED["model"]["language_model"]["head"]["weight"])


def test_extra_state_stays_in_its_place():
    """Other values in a state, beside its tensors, are kept."""
    inner = OrderedDict([("weight", np.ones(2)), ("_extra_state", {"scale": 1})])
    tree = {"a": {"b": inner, "c": {"w": np.zeros(1)}}}
    state = choose_root(find_roots(tree), "a", tree=tree)
    assert list(state) == ["b.weight", "b._extra_state", "c.w"]


NOT_NESTED = {
    "a number beside": {"x": {"a": {"w": np.ones(1)}, "epoch": 3}},
    "an optimizer beside": {"x": {"a": {"w": np.ones(1)}, "o": OPTIMIZER.state_dict()}},
    "a tensor": {"x": np.ones(1), "y": {"w": np.ones(2)}, "z": 1},
    "two of one name": {"x": {1: {"w": np.ones(1)}, "1": {"w": np.ones(1)}}},
    "nothing": {"x": {}, "y": {"w": np.ones(1)}},
    "a key without a name": {"x": {object(): {"w": np.ones(1)}}},
}


@pytest.mark.parametrize("name", NOT_NESTED)
def test_other_trees_are_not_taken_for_one(name):
    """A tree with more than tensors in dicts is not one state: a root must be chosen."""
    tree = NOT_NESTED[name]
    with pytest.raises(RootError, match="no state dict at 'x'"):
        choose_root(find_roots(tree), "x", tree=tree)


def test_a_module_is_not_a_root(tmp_path):
    """If `root=` names a module of the state, the error gives the arguments that load it, and they work."""
    torch.save(nn.ModuleDict({"head": nn.Linear(2, 2)}).state_dict(), tmp_path / "m.pt")
    text = r"'head' is a module: load it with include='head', rename='head\.\{\*p\} -> \{\*p\}'"
    with pytest.raises(RootError, match=text):
        statedict.load_state_dict(nn.Linear(2, 2), tmp_path / "m.pt", root="head")
    assert statedict.load_state_dict(
        nn.Linear(2, 2), tmp_path / "m.pt", include="head", rename="head.{*p} -> {*p}"
    ).loaded == ["weight", "bias"]


def test_keys_without_a_text_do_not_name_a_root():
    """A value whose key is a parameter, or any other object, is not listed as a root."""
    weight = nn.Parameter(torch.ones(2))
    tree = {
        "model": {"w": np.ones(1)},
        "optimizer": {"state": {weight: {"momentum": np.ones(2)}}, (1, "a"): {"w": np.ones(1)}},
    }
    assert list(find_roots(tree)) == ["model", "optimizer/(1, 'a')"]


def test_what_cannot_be_read_is_a_choice():
    """Its error is given if it is asked for or would be chosen, and told if nothing is chosen."""
    weights = {"w": np.ones(1)}
    roots = find_roots({"ema": weights, "optimizer": {"state": {}, "param_groups": []}})
    broken = {"model": ValueError("it is broken")}
    for root in ("auto", "model", "model/encoder"):
        with pytest.raises(RootError, match=r"'model' cannot be read: it is broken. Available: 'ema', 'optimizer'"):
            choose_root(roots, root, unopened=broken)
    assert list(choose_root(roots, "ema", unopened=broken)) == ["w"]
    assert list(choose_root({**roots, "model": roots["ema"]}, "auto", unopened={"scheduler": ValueError()})) == ["w"]
    with pytest.raises(RootError, match="no state dict; 'model' cannot be read: it is broken"):
        choose_root({}, "auto", unopened=broken)
    with pytest.raises(RootError, match="no name marks one as the model's; 'unet' cannot be read: it is broken"):
        choose_root(find_roots({"vae": weights, "text": weights}), "auto", unopened={"unet": broken["model"]})
    for root in ("auto", "model"):
        with pytest.raises(RootError, match="'model' cannot be read: it is broken"):
            choose_part({"a": 1}, root, lambda part: False, unopened=broken, required=False)


def test_a_part_that_is_not_there():
    """The error for an unknown root lists the choices."""
    with pytest.raises(RootError, match=r"nothing at 'optimzer'; did you mean 'optimizer'\?"):
        choose_part({"optimizer": {"state": {}, "param_groups": []}}, "optimzer", lambda part: "state" in part)
    with pytest.raises(TypeError, match="root= must be a string, not 3"):
        choose_part({}, 3, bool)


ids = st.one_of(st.integers(0, 9), st.text("ab.", min_size=1, max_size=5).filter(lambda text: text.strip(".") == text))


@given(
    st.lists(ids, min_size=1, max_size=4, unique_by=str),
    st.lists(st.sampled_from(["step", "exp_avg", "a.b"]), unique=True),
)
def test_a_flat_optimizers_state_is_nested_again(numbers, roles):
    """What `find_roots` flattens is nested again as it was, whatever the parameters are called."""
    entries = {number: {role: np.ones(1) for role in roles} for number in numbers if roles}
    if any(
        f"{one}.".startswith(f"{other}.") for one in map(str, numbers) for other in map(str, numbers) if one != other
    ):
        return  # such names cannot be told apart
    tree = {"state": entries, "param_groups": [{"lr": 1.0, "params": list(numbers)}]}
    flat = find_roots(tree)[""]
    again = choose_part(flat, "auto", lambda part: isinstance(part, dict) and "state" in part)
    assert again == tree or str(again) == str(tree)
