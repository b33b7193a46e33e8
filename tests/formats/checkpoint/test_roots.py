"""Every state dict in a file has a path; `"auto"` chooses the main one, or the error lists them."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from statedict.errors import RootError
from statedict.formats import Pair, choose_root, find_roots
from statedict.state import Opaque, StateDict, leaf_of


def state(*names: str, **metadata: object) -> OrderedDict:
    made = OrderedDict((name, leaf_of(np.zeros(2))) for name in names or ("0.weight", "0.bias"))
    if metadata:
        made._metadata = OrderedDict(metadata)
    return made


def optimizer() -> dict:
    return {"state": {0: {"exp_avg": leaf_of(np.zeros(2)), "step": 1}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def module(**children: Opaque) -> Opaque:
    made = Opaque("mine", "Net", (), new=True)
    made.state = {"_parameters": state("weight"), "_buffers": {}, "_modules": children}
    return made


TENSOR = leaf_of(np.zeros(()))
# The layouts of real trainers: what they save, the roots in it, the one that is meant (None: ambiguous).
LAYOUTS = {
    "a state dict": (state(), [""], ""),
    "a state dict with extra state": (state() | {"_extra_state": {"scale": 1}}, [""], ""),
    "a state dict with tensors as extra state": (
        state() | {"0._extra_state": {"scale": 1, "history": TENSOR}},
        [""],
        "",
    ),
    "an empty one": ({}, [""], ""),
    "parameter groups without a state": (state() | {"param_groups": [1]}, [""], ""),
    "the same inside": ({"model": state() | {"param_groups": [1]}, "optim": optimizer()}, ["model", "optim"], "model"),
    "a module": (module(), [""], ""),
    "Lightning": (
        {
            "epoch": 3,
            "global_step": 9,
            "state_dict": state(),
            "loops": {"fit_loop": {"state_dict": {}}},
            "lr_schedulers": [{"base_lrs": [0.1]}],
            "optimizer_states": [optimizer()],
            "callbacks": {"ModelCheckpoint": {"best_model_score": TENSOR, "best_k_models": {"a.ckpt": TENSOR}}},
        },
        ["state_dict", "optimizer_states/0", "callbacks/ModelCheckpoint/best_k_models"],
        "state_dict",
    ),
    "timm": (
        {"epoch": 1, "arch": "x", "state_dict": state(), "state_dict_ema": state(), "optimizer": optimizer()},
        ["state_dict", "state_dict_ema", "optimizer"],
        "state_dict",
    ),
    "mmengine": (
        {
            "meta": {"epoch": 1},
            "state_dict": state(),
            "message_hub": {"log_scalars": OrderedDict()},
            "optimizer": optimizer(),
        },
        ["state_dict", "optimizer"],
        "state_dict",
    ),
    "a script": (
        {"epoch": 1, "model_state_dict": state(), "optimizer_state_dict": optimizer(), "loss": TENSOR},
        ["model_state_dict", "optimizer_state_dict"],
        "model_state_dict",
    ),
    "a script with a loss": ({"model": state(), "loss": TENSOR}, ["model"], "model"),
    "fairseq": (
        {
            "args": Opaque("argparse", "Namespace", ()),
            "model": state(),
            "last_optimizer_state": optimizer(),
            "extra_state": {"x": 1},
        },
        ["model", "last_optimizer_state"],
        "model",
    ),
    "DeepSpeed": ({"module": state(), "buffer_names": [], "optimizer": None, "client": {"x": 1}}, ["module"], "module"),
    "nnU-Net": (
        {"network_weights": state(), "optimizer_state": optimizer(), "init_args": {}},
        ["network_weights", "optimizer_state"],
        "network_weights",
    ),
    "YOLO": (
        {"model": module(), "ema": module(), "optimizer": None, "train_args": {"lr": 1}},
        ["model", "ema"],
        "model",
    ),
    "BasicSR": ({"params": state(), "params_ema": state()}, ["params", "params_ema"], "params"),
    "only an average": ({"params_ema": state()}, ["params_ema"], "params_ema"),
    "a model of a name of its own beside its average": (
        {"unet": state(), "unet_ema": state()},
        ["unet", "unet_ema"],
        "unet",
    ),
    "nested": (
        {"checkpoint": {"model": state(), "ema": {"state_dict": state()}}},
        ["checkpoint/model", "checkpoint/ema/state_dict"],
        "checkpoint/model",
    ),
    "the nearest of two": (
        {"model": state(), "extra": {"state_dict": state()}},
        ["model", "extra/state_dict"],
        "model",
    ),
    "the first of two names": ({"weights": state(), "state_dict": state()}, ["weights", "state_dict"], "state_dict"),
    "one of another name": ({"demixer": state(), "config": {"a": 1}}, ["demixer"], "demixer"),
    "a list": ([1, {"net": state()}], ["1/net"], "1/net"),
    "two networks": ({"generator": state(), "discriminator": state()}, ["generator", "discriminator"], None),
    "two of one name": ({"a": {"model": state()}, "b": {"model": state()}}, ["a/model", "b/model"], None),
    "an optimizer's file": (optimizer(), [""], ""),
    "only an optimizer": ({"optimizer": optimizer(), "epoch": 1}, ["optimizer"], "optimizer"),
    "only two optimizers": ({"a": optimizer(), "b": optimizer()}, ["a", "b"], None),
    "nothing": ({"epoch": 1, "history": [1, 2]}, [], None),
    "a number": (3, [], None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_roots_of_real_layouts(name):
    """Checkpoints of each trainer have the expected roots, and the model is found without asking."""
    tree, paths, meant = LAYOUTS[name]
    roots = find_roots(tree)
    assert list(roots) == paths
    assert all(isinstance(root, StateDict) for root in roots.values())
    if meant is not None:
        assert choose_root(roots, "auto") is roots[meant]
        return
    with pytest.raises(RootError) as caught:
        choose_root(roots, "auto", "x.pt")
    assert caught.value.choices == tuple(paths)
    assert "x.pt" in str(caught.value)


def test_a_root_by_its_path():
    """A path chooses exactly; the error for a wrong one names the nearest and lists all choices."""
    roots = find_roots({"model": state(), "ema": {"state_dict": state()}})
    assert choose_root(roots, "ema/state_dict") is roots["ema/state_dict"]
    with pytest.raises(RootError, match="did you mean 'ema/state_dict'") as caught:
        choose_root(roots, "ema/statedict")
    assert caught.value.choices == ("model", "ema/state_dict")


def test_metadata_comes_along():
    """A mapping with `_metadata` is a root, and keeps it."""
    tree = {"model": state("a.weight", **{"": {"version": 2}}) | {}}
    tree["model"]._metadata = OrderedDict({"a": {"version": 3}})
    [found] = find_roots(tree).values()
    assert found._metadata == OrderedDict({"a": {"version": 3}})
    few = OrderedDict({"a": 1, "b": 2, "c": leaf_of(np.zeros(1))})
    few._metadata = OrderedDict({"": {"version": 1}})
    assert list(find_roots({"quantised": few})) == ["quantised"]


def test_mappings_of_unknown_classes_are_looked_into():
    """State dicts of dict subclasses, and those in attributes and arguments of unknown classes, are found."""
    custom = Opaque("mine", "StateDict", (), new=True)
    custom.items = [Pair("w", leaf_of(np.zeros(2))), Pair("b", leaf_of(np.zeros(2)))]
    custom.state = {"_metadata": OrderedDict({"": {"version": 1}})}
    holder = Opaque("mine", "Checkpoint", (1, state()), {"key": state()})
    holder.state = {"net": custom}
    roots = find_roots(holder)
    assert list(roots) == ["net", "1", "key"]
    assert list(roots["net"]) == ["w", "b"]
    assert roots["net"]._metadata == OrderedDict({"": {"version": 1}})
    items = Opaque("mine", "Bag", ())
    items.items = [1, state(), Pair("named", state())]
    assert list(find_roots(items)) == ["1", "named"]


def test_optimizer_states_have_flat_names():
    """An optimizer's tensors are named by parameter and role."""
    [found] = find_roots({"optimizer": optimizer()}).values()
    assert list(found) == ["state.0.exp_avg", "state.0.step", "param_groups"]


def test_shared_and_cyclic_trees_end():
    """A cycle is visited once; one state under two paths is a root at both."""
    shared = state()
    tree: dict = {"a": {"model": shared}, "b": {"model": shared}}
    tree["self"] = tree
    assert list(find_roots(tree)) == ["a/model", "b/model"]
    deep: list = []
    for _ in range(64):
        deep = [deep, deep]
    assert find_roots(deep) == {}


def test_a_module_without_end_is_refused():
    """Modules that contain each other twice, sixty levels deep, have 2**60 names and are refused."""
    from statedict.errors import FormatError

    made = module()
    for _ in range(60):
        made = module(a=made, b=made)
    with pytest.raises(FormatError, match="are nested in each other"):
        find_roots(made)


def test_a_module_in_itself_is_gone_through_once():
    """A module among its own descendants is visited once."""
    outer = module(child=module())
    outer.state["_modules"]["self"] = outer
    [found] = find_roots(outer).values()
    assert list(found) == ["weight", "child.weight"]


def test_mappings_are_not_changed():
    """Looking for roots does not change the tree."""
    tree = {"groups": defaultdict(list, {"a": [1]}), "model": state()}
    find_roots(tree)
    assert dict(tree["groups"]) == {"a": [1]}


def test_parameter_groups_alone_are_not_an_optimizer():
    """A state with an entry of that name is an ordinary state, with all its entries."""
    [root] = find_roots(state() | {"param_groups": [1]}).values()
    assert list(root) == ["0.weight", "0.bias", "param_groups"]


def test_paths_are_short():
    """A very long key, or an integer too long for Python to print, is shortened in a path."""
    tree = {"k" * 1_000_000: {(1, "x"): state()}, 1 << 20_000: state()}
    assert list(find_roots(tree)) == [f"{'k' * 200}/(1, 'x')", "an int of 20,001 bits"]
