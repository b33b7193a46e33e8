"""What the sound pair does beyond PyTorch's: names, checks before anything changes, no aliasing, all or nothing."""

import copy
import re
from collections import namedtuple
from dataclasses import replace
from itertools import chain, pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import statedict
from statedict.errors import ChecksumError, LoadError, SaveError
from statedict.state import Leaf, Opaque, Storage, contiguous, dtype, leaf_of, map_tree
from statedict.torch.optimizers._read import read_optimizer
from statedict.torch.optimizers._write import write_optimizer
from statedict.tree import SOUND


def model_of(*widths):
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def trained(model, kind=torch.optim.Adam, **options):
    optimizer = kind(model.parameters(), **({"lr": 0.1} | options))
    width = next(model.parameters()).shape[-1]
    for n in range(2):
        optimizer.zero_grad()
        model(torch.full((3, width), float(n + 1), dtype=next(model.parameters()).dtype)).abs().pow(2).sum().backward()
        optimizer.step()
    return optimizer


def bits(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().reshape(-1).view(torch.uint8).tolist()
    if isinstance(value, dict):
        return type(value), {key: bits(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [bits(entry) for entry in value]
    return repr(value)


def tensors(tree):
    found = []
    map_tree(tree, lambda value: found.append(value) if isinstance(value, torch.Tensor) else None)
    return found


def storages(tree):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors(tree)}


def of(model, optimizer):
    """The optimizer's state by parameter name."""
    return {name: optimizer.state[p] for name, p in model.named_parameters() if optimizer.state.get(p)}


# names


def test_reordered_parameters_get_their_own_state():
    """State follows the parameter's name, whatever the order and the groups."""
    model = model_of(3, 3, 3)
    saved = read_optimizer(trained(model), model)
    other = model_of(3, 3, 3)
    named = dict(other.named_parameters())
    backwards = torch.optim.Adam(
        [{"params": [named["1.bias"], named["0.bias"]]}, {"params": [named["1.weight"], named["0.weight"]]}]
    )
    outcome = write_optimizer(backwards, saved, model=other)
    assert not outcome.missing
    assert set(outcome.loaded) == set(named)
    assert bits(of(other, backwards)) == bits({n: saved["state"][i] for i, n in enumerate(named)})
    assert [group["lr"] for group in backwards.param_groups] == [0.1, 0.1]


def test_names_that_the_optimizer_was_built_with_serve():
    """Without a model, the names given to the optimizer by `named_parameters()` are used on both sides."""
    model, other = model_of(3, 3), model_of(3, 3)
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.5, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    backwards = torch.optim.SGD(list(other.named_parameters())[::-1], lr=0.1, momentum=0.1)
    write_optimizer(backwards, optimizer.state_dict())
    assert bits(of(model, optimizer)) == bits(of(other, backwards))
    assert backwards.param_groups[0]["param_names"] == ["0.bias", "0.weight"]


def test_added_and_removed_parameters_are_reported():
    """A parameter on one side only is an error; when that is allowed, the rest gets its own state and it keeps its."""
    model, larger = model_of(3, 3), model_of(3, 3, 2)
    saved, target = read_optimizer(trained(model), model), trained(larger)
    before = bits(of(larger, target))
    with pytest.raises(LoadError, match=re.escape('Missing key(s) in state_dict: "1.weight", "1.bias"')) as caught:
        write_optimizer(target, saved, model=larger)
    assert caught.value.report.missing == ["1.weight", "1.bias"]
    assert before == bits(of(larger, target))
    outcome = write_optimizer(target, saved, model=larger, strict=False)
    assert (outcome.missing, outcome.unexpected) == (["1.weight", "1.bias"], [])
    after = of(larger, target)
    assert bits(after["0.weight"]) == bits(saved["state"][0])
    assert bits(after["1.bias"]) == before[1]["1.bias"]
    back = torch.optim.Adam(model.parameters())
    assert write_optimizer(back, read_optimizer(target, larger), model=model, strict=False).unexpected == [
        "1.weight",
        "1.bias",
    ]


def test_names_without_any_in_common_are_an_error():
    """Where no name is known, nothing is loaded even when not strict; the text shows both sides' names."""
    model = model_of(2, 2)
    wrapped = nn.Sequential()
    wrapped.add_module("backbone", model)
    saved = read_optimizer(trained(model), wrapped)
    with pytest.raises(
        LoadError, match=r"the saved state has 'backbone\.0\.weight', the optimizer has '0\.weight'; pass the model"
    ):
        write_optimizer(torch.optim.Adam(model.parameters()), saved, model=model, strict=False)


def test_a_tied_parameter_is_found_under_any_of_its_names():
    """A tied parameter's state is found under every name that the model has for it; two different states are refused."""
    model = nn.ModuleDict({"embed": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 2, bias=False)})
    model["head"].weight = model["embed"].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = {0: {"momentum_buffer": torch.full((2, 2), 7.0)}}
    group = optimizer.state_dict()["param_groups"][0]
    write_optimizer(
        optimizer, {"state": state, "param_groups": [group | {"param_names": ["head.weight"]}]}, model=model
    )
    assert optimizer.state[model["embed"].weight]["momentum_buffer"][0, 0] == 7.0
    both = group | {"params": [0, 1], "param_names": ["embed.weight", "head.weight"]}
    with pytest.raises(LoadError, match=r"'embed\.weight' and 'head\.weight' are one parameter in the model"):
        write_optimizer(optimizer, {"state": state, "param_groups": [both]}, model=model)


def test_groups_take_the_options_their_parameters_were_saved_with():
    """Regrouped parameters bring their options; where those contradict each other the load is refused."""
    model = model_of(2, 2)
    weight, bias = model.parameters()
    two = torch.optim.SGD([{"params": [weight], "lr": 1.0, "tag": "w"}, {"params": [bias], "lr": 2.0}], lr=0.1)
    saved = read_optimizer(two, model)
    swapped = torch.optim.SGD([{"params": [bias]}, {"params": [weight]}], lr=0.1)
    write_optimizer(swapped, saved, model=model)
    assert [(g["lr"], g.get("tag")) for g in swapped.param_groups] == [(2.0, None), (1.0, "w")]
    one = torch.optim.SGD([weight, bias], lr=0.1)
    with pytest.raises(LoadError, match=r"saved in groups 0 and 1, which differ in lr, tag"):
        write_optimizer(one, saved, model=model)
    assert one.param_groups[0]["lr"] == 0.1


def test_groups_may_be_empty():
    """A group without parameters keeps its options, and an optimizer of only such groups takes no state."""
    model = model_of(2, 2)
    saved = read_optimizer(trained(model), model)
    optimizer = torch.optim.Adam([{"params": list(model.parameters())}, {"params": [], "lr": 7.0}])
    write_optimizer(optimizer, saved, model=model)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 7.0]
    with pytest.raises(LoadError, match="Unexpected key"):
        write_optimizer(torch.optim.Adam([{"params": []}]), saved, model=model)


def test_a_parameter_that_no_name_is_known_of_is_named_by_its_place():
    """Where some parameters have names, one that has none is named by its place in the optimizer, and found there again."""
    model, extra = model_of(2, 2), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*model.parameters(), extra], lr=0.1)
    saved = read_optimizer(optimizer, model)
    assert saved["param_groups"][0]["param_names"] == ["0.weight", "0.bias", "param_groups.0.params.2"]
    assert write_optimizer(optimizer, saved, model=model).loaded == saved["param_groups"][0]["param_names"]


def test_names_in_the_place_of_numbers_are_names():
    """The form that torch.distributed saves, parameters by name, is read too."""
    model = model_of(2, 2)
    saved = read_optimizer(trained(model))
    names = [name for name, _ in model.named_parameters()]
    by_name = {
        "state": {names[n]: state for n, state in saved["state"].items()},
        "param_groups": [{**saved["param_groups"][0], "params": names[::-1]}],
    }
    other = torch.optim.Adam(model.parameters())
    write_optimizer(other, by_name, model=model)
    assert bits(saved["state"]) == bits(other.state_dict()["state"])


def test_positions_decide_where_names_are_unknown():
    """Without names on both sides PyTorch's rule holds, and its words where groups differ."""
    model, saved = model_of(2, 2), trained(model_of(2, 2)).state_dict()
    optimizer = torch.optim.Adam(model.parameters())
    assert write_optimizer(optimizer, saved, model=model).loaded == ["0.weight", "0.bias"]
    split = torch.optim.Adam([{"params": [p]} for p in model.parameters()])
    with pytest.raises(
        LoadError, match="loaded state dict has a different number of parameter groups: 1, but the optimizer"
    ):
        write_optimizer(split, saved)
    shorter = torch.optim.Adam(list(model.parameters())[:1])
    with pytest.raises(
        LoadError,
        match=r"doesn't match the size of optimizer's group: group 0 has 2 parameters in the saved state and 1",
    ):
        write_optimizer(shorter, saved)


def test_an_unnamed_optimizer_stays_unnamed():
    """Names in the file do not get into an optimizer that has none: it would refuse groups without names afterwards."""
    model = model_of(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    write_optimizer(optimizer, read_optimizer(optimizer, model), model=model)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert len(optimizer.param_groups) == 2


PARAMETERS = [f"p{n}" for n in range(6)]


@st.composite
def groupings(draw):
    """Some of the parameters, in any order, in any groups."""
    names = draw(st.permutations(PARAMETERS))[: draw(st.integers(1, 6))]
    cuts = sorted(draw(st.sets(st.integers(1, len(names) - 1)))) if len(names) > 1 else []
    return [names[a:b] for a, b in pairwise([0, *cuts, len(names)])]


@settings(max_examples=100)
@given(groupings(), groupings())
def test_state_never_reaches_another_name(saved_groups, groups):
    """However two optimizers group some of the same parameters, each gets the state of its own name, or none."""
    model = nn.ParameterDict({name: torch.full((int(name[1]) + 1,), 1.0) for name in PARAMETERS})

    def build(groups):
        return torch.optim.SGD([{"params": [model[name] for name in names]} for names in groups], lr=0.1, momentum=0.9)

    source, target = build(saved_groups), build(groups)
    for names in saved_groups:
        for name in names:
            source.state[model[name]]["momentum_buffer"] = torch.full((int(name[1]) + 1,), float(name[1]))
    there, here = (list(chain.from_iterable(some)) for some in (saved_groups, groups))
    if not set(there) & set(here):
        with pytest.raises(LoadError, match="the parameter names differ"):
            write_optimizer(target, read_optimizer(source, model), model=model, strict=False)
        return
    outcome = write_optimizer(target, read_optimizer(source, model), model=model, strict=False)
    assert {n: float(n[1]) for n in here if n in there} == {
        name: state["momentum_buffer"][0].item() for name, state in of(model, target).items()
    }
    assert [name for name in here if name not in there] == outcome.missing
    assert [name for name in there if name not in here] == outcome.unexpected


# what does not fit


GIVEN = ("SGD", "RMSprop", "Rprop", "Adagrad", "NAdam")
TARGETS = ("Adam", "SGD", "Adadelta", "ASGD", "LBFGS", "RAdam")


@pytest.mark.parametrize(("given", "target"), [(a, b) for a in GIVEN for b in TARGETS if a != b])
def test_another_optimizers_state_is_refused(given, target):
    """Another class's state is an error that says what is missing, and the optimizer can go on as if nothing had been."""
    model = model_of(3, 3)
    saved = read_optimizer(trained(model, getattr(torch.optim, given)), model)
    optimizer = (
        torch.optim.LBFGS(model.parameters()) if target == "LBFGS" else trained(model, getattr(torch.optim, target))
    )
    before, attributes = bits(optimizer.state_dict()), dict(vars(optimizer))
    with pytest.raises(LoadError, match=f"group 0 of the saved state .*{target} (needs|does not have)"):
        write_optimizer(optimizer, saved, model=model)
    assert before == bits(optimizer.state_dict())
    assert attributes == vars(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(1, 3)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def test_the_other_optimizer_is_named():
    """The error says which of PyTorch's optimizers has such options."""
    model = model_of(2, 2)
    with pytest.raises(LoadError, match=r"lacks 'betas', 'eps', which Adam needs.* \(options of SGD\)"):
        write_optimizer(torch.optim.Adam(model.parameters()), trained(model, torch.optim.SGD).state_dict())


def test_the_same_options_with_other_entries_are_refused():
    """Adamax and Adam have the same options; the entries tell them apart."""
    model = model_of(2, 2)
    saved = trained(model, torch.optim.Adamax).state_dict()
    with pytest.raises(
        LoadError, match=r"0\.weight: its saved state lacks 'exp_avg_sq', which Adam needs; it has 'step'"
    ):
        write_optimizer(torch.optim.Adam(model.parameters()), saved, model=model)


def test_a_number_of_steps_must_be_one_element():
    """An entry that is a single number accepts a tensor of one element of any rank, and no longer one."""
    model = model_of(2, 2)
    saved = trained(model).state_dict()
    steps = saved["state"][0]["step"]
    saved["state"][0]["step"] = steps.reshape(1, 1)
    write_optimizer(torch.optim.Adam(model.parameters()), saved, model=model)
    saved["state"][0]["step"] = steps.expand(3)
    with pytest.raises(LoadError, match=r"its 'step' must have shape \[\], but the saved state has shape \[3\]"):
        write_optimizer(torch.optim.Adam(model.parameters()), saved, model=model)


def test_other_shapes_are_refused():
    """State of another shape is an error that names the parameter, the entry and both shapes."""
    model, wider = model_of(3, 3), model_of(4, 3)
    optimizer = trained(model)
    before = bits(optimizer.state_dict())
    with pytest.raises(
        LoadError, match=r"0\.weight: its 'exp_avg' must have shape \[3, 3\], but the saved state has shape \[3, 4\]"
    ):
        write_optimizer(optimizer, read_optimizer(trained(wider), wider), model=model)
    assert before == bits(optimizer.state_dict())


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Rprop, torch.optim.SGD], ids=lambda kind: kind.__name__)
def test_complex_state_fits_complex_parameters_only(kind, tmp_path):
    """State of a complex parameter for a real one, or the reverse, is refused: `step` would raise, or lose a part."""
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    dtypes = {"real": torch.float32, "complex": torch.complex64}
    models = {name: nn.Linear(2, 2, dtype=dtype) for name, dtype in dtypes.items()}
    optimizers = {name: trained(model, kind, **options) for name, model in models.items()}
    for theirs, ours in product(dtypes, repeat=2):
        statedict.save(optimizers[theirs], tmp_path / "saved.pt")
        if theirs == ours:
            assert write_optimizer(optimizers[ours], statedict.load(tmp_path / "saved.pt")).errors == []
            continue
        text = (
            rf"must be {ours}, like the parameter, but the saved state has {str(dtypes[theirs]).removeprefix('torch.')}"
        )
        for source in (tmp_path / "saved.pt", optimizers[theirs].state_dict()):
            with pytest.raises(LoadError, match=text):
                statedict.load_state_dict(optimizers[ours], source)


def test_a_judge_may_let_the_rest_be_loaded():
    """When the judge lets an outcome with errors pass, what fits is loaded and the rest keeps its state."""
    model, wider = model_of(3, 3), model_of(4, 3)
    optimizer, seen = trained(model), []
    weight, bias = model.parameters()
    before = bits(optimizer.state[weight])
    saved = read_optimizer(trained(wider), wider)
    write_optimizer(optimizer, saved, model=model, judge=seen.append)
    assert len(seen[0].errors) == 2
    assert seen[0].loaded == ["0.bias"]
    assert before == bits(optimizer.state[weight])
    assert bits(optimizer.state[bias]) == bits(saved["state"][1])


def test_a_judge_that_raises_changes_nothing():
    """What the judge raises is passed on, and the optimizer is as it was."""
    model = model_of(3, 3)
    optimizer, saved = torch.optim.Adam(model.parameters(), lr=0.5), trained(model).state_dict()

    def judge(outcome):
        raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        write_optimizer(optimizer, saved, judge=judge)
    assert (optimizer.param_groups[0]["lr"], dict(optimizer.state)) == (0.5, {})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            {"optimizer": {"state": {}, "param_groups": []}, "epoch": 1},
            "found the keys 'optimizer', 'epoch'; there is one under 'optimizer'",
        ),
        ([1], "expected a dict with 'state' and 'param_groups', not list"),
        ({}, "found the keys (none)"),
        ({"state": [], "param_groups": []}, "'param_groups' a list, not list and list"),
        ({"state": {}, "param_groups": [{"lr": 1}]}, "group 0 of 'param_groups' must have a list 'params'"),
        ({"state": {}, "param_groups": [{"params": [0], "param_names": []}]}, "1 parameters and 0 param_names"),
        (
            {"state": {}, "param_groups": [{"params": [0, 1], "param_names": ["a", "a"]}]},
            "2 parameters with the name 'a'",
        ),
    ],
)
def test_what_is_no_optimizer_state_is_refused(source, text):
    """What is not an optimizer's state is refused in words, with a hint where it lies one level deeper."""
    with pytest.raises(LoadError, match=re.escape(text)):
        write_optimizer(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), source)


def test_lbfgs_needs_the_same_parameters_in_the_same_order():
    """LBFGS keeps one flat history of all parameters, so nothing may be reordered, added or resized."""
    model = model_of(2, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(1, 2)).pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    saved = read_optimizer(optimizer, model)
    backwards = torch.optim.LBFGS(list(model.parameters())[::-1])
    with pytest.raises(LoadError, match="in the saved order"):
        write_optimizer(backwards, saved, model=model)
    wider = model_of(2, 3)
    with pytest.raises(LoadError, match=r"'d' must have 9 elements.*shape \[6\]"):
        write_optimizer(torch.optim.LBFGS(wider.parameters()), saved, model=wider)


def test_options_of_an_older_version_are_filled_in():
    """A group saved before an option existed is completed as its class does, or as the optimizer computes."""
    model = model_of(2, 2)
    saved = trained(model).state_dict()
    for key in ("amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"):
        del saved["param_groups"][0][key]
    saved["state"][0]["step"] = 2
    optimizer = torch.optim.Adam(model.parameters(), foreach=True)
    write_optimizer(optimizer, saved)
    assert (
        optimizer.param_groups[0]["foreach"],
        optimizer.param_groups[0]["amsgrad"],
        optimizer.state[model[0].weight]["step"].item(),
    ) == (True, False, 2.0)


def test_a_class_of_its_own_may_fill_in_options_or_is_refused():
    """An unknown class completes old options in its `__setstate__`; if it does not, the load is refused and undone."""

    class Lion(torch.optim.Optimizer):
        filled = True

        def __init__(self, params):
            super().__init__(params, {"lr": 0.1, "betas": (0.9, 0.99)})

        def __setstate__(self, state):
            super().__setstate__(state)
            for group in self.param_groups:
                if self.filled:
                    group.setdefault("betas", (0.5, 0.5))

    parameter = nn.Parameter(torch.ones(2))
    optimizer = Lion([parameter])
    optimizer.state[parameter] = {"exp_avg": torch.ones(2)}
    saved = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"params": [0], "lr": 0.3}]}
    write_optimizer(optimizer, saved)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (0.3, (0.5, 0.5))
    before = bits(optimizer.state_dict())
    Lion.filled = False
    with pytest.raises(LoadError, match="lacks 'betas', which Lion needs") as caught:
        write_optimizer(optimizer, saved)
    assert caught.value.__notes__ == ["Nothing was changed: everything that the attempt had modified was restored."]
    assert before == bits(optimizer.state_dict())
    saved["state"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(LoadError, match=r"'exp_avg' must have shape \[2\]"):
        write_optimizer(optimizer, saved)


def test_unknown_objects_and_meta_parameters_are_refused():
    """Inert data of an unknown class is not put into an optimizer, nor is state given to a parameter without memory."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    groups = optimizer.state_dict()["param_groups"]
    with pytest.raises(LoadError, match=r"its 'x' is an object of the unknown class some\.Thing"):
        write_optimizer(optimizer, {"state": {0: {"x": Opaque("some", "Thing")}}, "param_groups": groups})
    with pytest.raises(LoadError, match="its state must be a dict, not list"):
        write_optimizer(optimizer, {"state": {0: [1]}, "param_groups": groups})
    meta = torch.optim.SGD([nn.Parameter(torch.ones(2, device="meta"))], lr=0.1)
    saved = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": groups}
    with pytest.raises(LoadError, match="the parameter is on the meta device"):
        write_optimizer(meta, saved)
    lazy = torch.optim.SGD([nn.parameter.UninitializedParameter()], lr=0.1)
    with pytest.raises(LoadError, match="the parameter is not initialized"):
        write_optimizer(lazy, saved)
    opaque = {"state": {}, "param_groups": [groups[0] | {"lr": [Opaque("some", "Rate")]}]}
    with pytest.raises(
        LoadError, match=r"'lr' in group 0 of the saved state is an object of the unknown class some\.Rate"
    ):
        write_optimizer(optimizer, opaque)


def test_a_stray_state_cannot_be_read():
    """State of a tensor that is in no group is a clear error when it is to be saved."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer.state[torch.ones(4)] = {"momentum_buffer": torch.ones(4)}
    with pytest.raises(
        SaveError, match=r"SGD has state for a tensor of shape \[4\] that is not in any of its param_groups"
    ):
        read_optimizer(optimizer)


# memory and dtypes


def test_nothing_is_shared_with_the_source():
    """Loading the same state into two optimizers shares no memory between them, nor with the source."""
    model = model_of(2, 2)
    source = trained(model, lr=torch.tensor(0.1)).state_dict()
    one, other = (torch.optim.Adam(model.parameters()) for _ in range(2))
    before = bits(source)
    write_optimizer(one, source)
    write_optimizer(other, source)
    assert not storages(source) & storages(one.state_dict())
    assert not storages(other.state_dict()) & storages(one.state_dict())
    for tensor in tensors(one.state_dict()):
        tensor.add_(1)
    assert before == bits(source) == bits(other.state_dict())


def test_what_the_state_shares_with_itself_stays_shared():
    """Views of one buffer in a state, as flat optimizers have them, are views of one buffer after it is loaded."""
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([one, two], lr=0.1, momentum=0.9)
    flat = torch.arange(5.0)
    state = {0: {"momentum_buffer": flat[:2]}, 1: {"momentum_buffer": flat[2:]}}
    write_optimizer(optimizer, {"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    first, second = optimizer.state[one]["momentum_buffer"], optimizer.state[two]["momentum_buffer"]
    assert (
        first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr() != flat.untyped_storage().data_ptr()
    )
    assert flat.tolist() == [*first.tolist(), *second.tolist()]


def test_what_is_read_has_containers_of_its_own():
    """Changing the dicts that were read does not change the optimizer; the tensors are the optimizer's."""
    model = model_of(2, 2)
    optimizer = trained(model)
    state = read_optimizer(optimizer, model)
    assert state["state"][0]["exp_avg"] is optimizer.state[model[0].weight]["exp_avg"]
    state["state"][0].clear()
    state["param_groups"][0]["lr"] = 7
    assert (len(optimizer.state[model[0].weight]), optimizer.param_groups[0]["lr"]) == (3, 0.1)


class Masters(torch.optim.Optimizer):
    """Keeps float32 copies of its parameters and its moments in 8 bits, as libraries for large models do."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state["master"] = parameter.detach().float()
                state["moments"] = torch.zeros(parameter.shape, dtype=torch.uint8)


PAIRS = [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float64")]


@pytest.mark.parametrize(("parameters", "moments"), PAIRS)
def test_pytorchs_classes_get_the_dtype_of_their_parameters(parameters, moments):
    """The fresh state of PyTorch's optimizers has the parameters' dtype: saved state is cast to it, and it is reported."""
    saved = read_optimizer(trained(model_of(2, 2).to(getattr(torch, moments)), torch.optim.SGD, momentum=0.9))
    model = model_of(2, 2).to(getattr(torch, parameters))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def dtypes():
        return {str(tensor.dtype) for tensor in tensors(optimizer.state_dict())}

    outcome = write_optimizer(optimizer, saved, model=model)
    assert dtypes() == {f"torch.{parameters}"}
    ours, theirs = getattr(torch, parameters), getattr(torch, moments)
    kind = "widening" if torch.promote_types(theirs, ours) is ours else "rounding"
    assert outcome.casts[0] == ("0.weight.momentum_buffer", moments, parameters, kind)
    write_optimizer(optimizer, saved, dtype="torch.float64")
    assert dtypes() == {"torch.float64"}


@pytest.mark.parametrize("from_file", [False, True])
def test_elements_that_would_become_infinite_are_refused(tmp_path, from_file):
    """A moment too large for the parameter's dtype is an error, unless "overflow" is allowed; PyTorch makes it inf."""
    model = model_of(2, 2)
    saved = trained(model).state_dict()
    saved["state"][0]["exp_avg_sq"][0, 0] = 1e6
    half = model_of(2, 2).half()
    optimizer = torch.optim.Adam(half.parameters())
    if from_file:
        torch.save(saved, tmp_path / "optimizer.pt")
    source = tmp_path / "optimizer.pt" if from_file else saved
    text = r'"0.weight.exp_avg_sq": casting float32 from the checkpoint to float16 of the model would lose values \(overflow'
    with pytest.raises(LoadError, match=text) as refused:
        statedict.load_state_dict(optimizer, source, model=half)
    assert "0.weight" not in refused.value.report.loaded
    assert not optimizer.state
    report = statedict.load_state_dict(optimizer, source, model=half, allow_casts="overflow")
    kinds = {cast.name: cast.kind for cast in report.cast}
    assert (kinds.pop("0.weight.exp_avg_sq"), set(kinds.values())) == ("overflow", {"rounding"})
    stock = torch.optim.Adam(half.parameters())
    stock.load_state_dict(saved)
    assert bits(optimizer.state_dict()["state"]) == bits(stock.state_dict()["state"])
    assert torch.isinf(optimizer.state[half[0].weight]["exp_avg_sq"]).sum() == 1


def test_other_classes_keep_their_own_dtypes():
    """A class that is not PyTorch's may keep float32 copies or 8-bit moments of small parameters: nothing is cast."""
    model, other = (model_of(2, 2).bfloat16() for _ in range(2))
    saved = Masters(model.parameters())
    saved.step()
    optimizer = Masters(other.parameters())
    assert write_optimizer(optimizer, saved.state_dict()).casts == []
    assert {str(tensor.dtype) for tensor in tensors(optimizer.state_dict())} == {"torch.float32", "torch.uint8"}


def test_other_classes_get_the_dtypes_of_the_state_that_is_there():
    """The state that an optimizer has now shows which dtypes it works with."""
    model, other = (model_of(2, 2) for _ in range(2))
    saved, optimizer = Masters(model.parameters()), Masters(other.parameters())
    saved.step()
    optimizer.step()
    state = saved.state_dict()
    for entry in state["state"].values():
        entry["master"] = entry["master"].double()
    outcome = write_optimizer(optimizer, state, model=other)
    assert outcome.casts[0] == ("0.weight.master", "float64", "float32", "rounding")
    assert optimizer.state[other[0].weight]["master"].dtype is torch.float32


WAYS = [{}, {"foreach": True}, {"fused": True}, {"capturable": True}]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
KINDS = [
    kind for kind in vars(torch.optim).values() if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
]
KINDS = [kind for kind in KINDS if kind not in (torch.optim.Optimizer, torch.optim.SparseAdam)]


def stepping(kind, dtype, options):
    """A small model in that dtype, its optimizer, and a function that trains it for a step; None where PyTorch refuses."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=kind.__name__ != "Muon").to(dtype)
    usual = {"lr": 0.1, "momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(model.parameters(), **usual, **options)

    def loss():
        optimizer.zero_grad()
        found = (model(torch.ones(1, 3, dtype=dtype)) ** 2).sum()
        found.backward()
        return found

    def step():
        loss()
        optimizer.step(*[loss] * (kind is torch.optim.LBFGS))

    return optimizer, step


def works(kind, dtype, options):
    """The optimizer after a step, if PyTorch has it for that dtype and way."""
    try:
        optimizer, step = stepping(kind, dtype, options)
        step()
    except (RuntimeError, TypeError, AssertionError, ValueError, NotImplementedError):
        return None
    return optimizer


@pytest.mark.parametrize("options", WAYS, ids=lambda options: next(iter(options), "plain"))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_step_works_after_a_load_from_another_precision(kind, options):
    """State of parameters in one dtype, loaded for parameters in another, lets `step` go on as with PyTorch's loader."""
    sources = {dtype: made for dtype in DTYPES if (made := works(kind, dtype, options)) is not None}
    for theirs, ours in product(sources, repeat=2):
        stock, stock_step = stepping(kind, ours, options)
        stock.load_state_dict(copy.deepcopy(sources[theirs].state_dict()))
        optimizer, step = stepping(kind, ours, options)
        outcome = write_optimizer(optimizer, sources[theirs].state_dict(), rules=SOUND.allowing("overflow"))
        assert bool(outcome.casts) == (theirs is not ours)
        try:
            stock_step()
        except RuntimeError:
            continue
        step()


def test_numbers_are_not_cast():
    """Step counts and running products keep their dtype where the moments are cast."""
    model = model_of(2, 2)
    saved = trained(model, torch.optim.NAdam).state_dict()
    optimizer = torch.optim.NAdam(model.parameters())
    write_optimizer(optimizer, saved, dtype=torch.bfloat16)
    found = {key: value.dtype for key, value in optimizer.state[model[0].weight].items()}
    assert found == {
        "step": torch.float32,
        "mu_product": torch.float32,
        "exp_avg": torch.bfloat16,
        "exp_avg_sq": torch.bfloat16,
    }


@pytest.mark.parametrize("dtype", ["int64", "nonsense", torch.int8])
def test_only_floating_dtypes_can_be_asked_for(dtype):
    """A dtype that state cannot be cast to is refused before anything is read."""
    with pytest.raises(ValueError, match="floating-point dtype"):
        write_optimizer(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), {}, dtype=dtype)


Pair = namedtuple("Pair", "first second")


def test_strings_and_namedtuples_survive():
    """Values that PyTorch's loader turns into the text of a generator, or fails at, come through."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    value = {"name": "adaptive", "pair": Pair(torch.ones(2), "x"), "deep": [(torch.ones(1), {"step": 3})], "none": None}
    write_optimizer(optimizer, {"state": {0: value}, "param_groups": optimizer.state_dict()["param_groups"]})
    loaded = optimizer.state[parameter]
    assert bits(value) == bits(loaded)
    assert isinstance(loaded["pair"], Pair)
    assert loaded["pair"].first is not value["pair"].first


def test_unread_leaves_are_read():
    """Leaves, as a file's state has them, become tensors of the optimizer."""
    model = model_of(2, 2)
    source = trained(model).state_dict()
    lazy = map_tree(source, lambda value: leaf_of(value) or value)
    optimizer = torch.optim.Adam(model.parameters())
    write_optimizer(optimizer, lazy)
    assert bits(source) == bits(optimizer.state_dict())
    assert not storages(source) & storages(optimizer.state_dict())
    other = torch.optim.Adam(model_of(2, 2).to(torch.bfloat16).parameters())
    assert {cast.wanted for cast in write_optimizer(other, lazy, dtype="parameter").casts} == {"bfloat16"}
    other.register_load_state_dict_pre_hook(lambda o, s: s["state"][0]["exp_avg"].zero_())
    with pytest.raises(LoadError, match="not Tensor"):
        write_optimizer(other, lazy)


def test_checksums_are_settled_before_anything_changes():
    """A leaf whose checksum is wrong is not loaded, and nothing else is; unless checksums are not asked for."""

    class Damaged:
        def read_into(self, reads, *, verify=True):
            for storage, _, into in reads:
                into[:] = bytes(len(into))
                self.verify([storage] * verify)

        def verify(self, storages):
            for _ in storages:
                raise ChecksumError("these bytes are not those that were written")

        def view(self, storage, *, writable=False):
            return None

    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    leaf = Leaf(contiguous(dtype("float32"), (2,)), Storage(Damaged(), "damaged", 8))
    saved = {
        "state": {0: {"momentum_buffer": leaf}},
        "param_groups": [{**optimizer.state_dict()["param_groups"][0], "lr": 7}],
    }
    with pytest.raises(ChecksumError):
        write_optimizer(optimizer, saved)
    assert (optimizer.param_groups[0]["lr"], dict(optimizer.state)) == (0.1, {})
    write_optimizer(optimizer, saved, rules=replace(SOUND, verify=False))
    assert optimizer.state[parameter]["momentum_buffer"].tolist() == [0.0, 0.0]


# all or nothing


class Failing(torch.optim.SGD):
    """Fails in its `__setstate__`, after it has been given everything."""

    def __setstate__(self, state):
        super().__setstate__(state)
        raise ArithmeticError("half-way")


class Wrapping(torch.optim.Adam):
    """Has a loader and a reader of its own, as wrappers of optimizers have."""

    fails = False

    def state_dict(self):
        return {**super().state_dict(), "scale": 2.0}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.loads = getattr(self, "loads", 0) + 1
        for entry in self.state.values():
            entry["exp_avg"].zero_()
        if self.fails:
            raise ArithmeticError("half-way")


def hook_that_fails(optimizer, *args):
    optimizer.param_groups[0]["lr"] = 99
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.fill_(5)
        state["more"] = 1
    optimizer.extra = "x"
    raise ArithmeticError("half-way")


@pytest.mark.parametrize("where", ["setstate", "pre", "post", "own"])
def test_a_failure_at_any_step_is_undone(where):
    """An exception in a hook, in `__setstate__` or in a class's own loader leaves the optimizer bit for bit as it was."""
    model = model_of(2, 2)
    kind = {"setstate": Failing, "own": Wrapping}.get(where, torch.optim.Adam)
    saved = copy.deepcopy(trained(model, kind, **({"momentum": 0.9} if kind is Failing else {})).state_dict())
    optimizer = trained(model, kind, **({"momentum": 0.9} if kind is Failing else {}))
    if where in ("pre", "post"):
        getattr(optimizer, f"register_load_state_dict_{where}_hook")(hook_that_fails)
    Wrapping.fails = True
    attributes, before, source = dict(vars(optimizer)), bits(optimizer.state_dict()), bits(saved)
    held = [(id(group), id(group["params"])) for group in optimizer.param_groups]
    with pytest.raises(ArithmeticError, match="half-way"):
        write_optimizer(optimizer, saved)
    assert before == bits(optimizer.state_dict())
    assert attributes == vars(optimizer)
    assert held == [(id(group), id(group["params"])) for group in optimizer.param_groups]
    assert source == bits(saved)


def test_a_loader_of_its_own_is_called():
    """A class with a `load_state_dict` and a `state_dict` of its own is read and loaded through them, by name."""
    model = model_of(2, 2)
    Wrapping.fails = False
    state = read_optimizer(trained(model, Wrapping), model)
    assert (state["scale"], state["param_groups"][0]["param_names"]) == (2.0, ["0.weight", "0.bias"])
    backwards = Wrapping(list(model.parameters())[::-1])
    write_optimizer(backwards, state, model=model)
    assert backwards.loads == 1
    assert backwards.state[model[0].weight]["step"] == 2
    assert backwards.state[model[0].weight]["exp_avg"].shape == (2, 2)


def test_parameters_that_are_alike_are_reported_one_by_one(tmp_path):
    """Whatever is decided once for parameters of one shape is reported for each: casts, and states that do not fit."""

    def adam(shapes, dtype):
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes])
        for parameter in optimizer.param_groups[0]["params"][:-1]:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        return optimizer

    path = tmp_path / "adam.pt"
    saved = adam([2, 3, 2, 2], torch.float32)
    statedict.save(saved, path)
    other = adam([2, 3, 2, 2], torch.bfloat16)
    with statedict.open(path) as checkpoint:
        outcome = write_optimizer(other, checkpoint.object)
        names = [f"parameter {number} of group 0.{key}" for number in range(3) for key in ("exp_avg", "exp_avg_sq")]
        assert [cast.name for cast in outcome.casts] == names
        with pytest.raises(LoadError) as refused:
            write_optimizer(adam([4, 3, 4, 4], torch.float32), checkpoint.object)
    assert [f"parameter {number} of" in str(refused.value) for number in range(4)] == [True, False, True, False]
    state, before = other.state_dict()["state"], saved.state_dict()["state"]
    assert state.keys() == before.keys() == {0, 1, 2}
    for number in state:
        assert torch.equal(state[number]["exp_avg"], before[number]["exp_avg"].bfloat16())
        assert state[number]["step"].dtype == torch.float32
