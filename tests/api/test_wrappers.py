"""The ten wrapper cases: names that differ by wrappers only load strictly, with no argument."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import statedict
from statedict.errors import CollisionError, LoadError


class Wrapper(nn.Module):
    """Stands for FSDP and activation checkpointing, which keep their module under this name."""

    def __init__(self, name, module):
        super().__init__()
        self.add_module(name, module)


def compiled(module):
    return torch.compile(module, backend="eager")  # nothing is compiled until it is called


def parallel(module):
    return nn.DataParallel(module)


def fsdp(module):
    return Wrapper("_fsdp_wrapped_module", module)


def checkpointed(module):
    return Wrapper("_checkpoint_wrapped_module", module)


def deepspeed(module):
    return Wrapper("_forward_module", module)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.out = nn.Linear(3, 2)


class HasModule(nn.Module):
    """A real child that is called `module`, beside others."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(3, 3)
        self.out = nn.Linear(3, 2)


class OnlyModule(nn.Module):
    """A real child that is called `module`, and nothing else."""

    def __init__(self):
        super().__init__()
        self.module = Inner()


def inside(*wraps):
    """A model whose blocks are wrapped, as FSDP and activation checkpointing do it."""

    def wrap(model):
        for index, block in enumerate(model.layers):
            for one in wraps:
                block = one(block)
            model.layers[index] = block
        return model

    return wrap


def bare(model):
    return model


CASES = {
    "module.": (Inner, parallel, bare),
    "_orig_mod.": (Inner, compiled, bare),
    "_fsdp_wrapped_module.": (Inner, fsdp, bare),
    "_checkpoint_wrapped_module.": (Inner, checkpointed, bare),
    "_forward_module.": (Inner, deepspeed, bare),
    "nested twice": (Inner, lambda model: parallel(compiled(model)), bare),
    "nested, the other way on the other side": (
        Inner,
        lambda m: parallel(compiled(m)),
        lambda m: compiled(parallel(m)),
    ),
    "inside": (Inner, inside(checkpointed), bare),
    "inside and around": (Inner, lambda model: parallel(fsdp(inside(checkpointed, fsdp)(model))), bare),
    "both sides": (Inner, lambda model: compiled(inside(checkpointed)(model)), parallel),
    "a real child": (HasModule, parallel, bare),
    "a real child, inside": (HasModule, lambda model: deepspeed(compiled(model)), parallel),
    "a real child alone": (OnlyModule, parallel, bare),
    "a real child alone, compiled": (OnlyModule, compiled, parallel),
    "no wrapper, a real child": (HasModule, bare, bare),
}


def ordered(model):
    """The tensors in their order: wrapping changes names only."""
    return list(model.state_dict().values())


@pytest.mark.parametrize("to_file", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_both_ways(tmp_path, api, case, to_file):
    """From wrapped to bare and back, in memory and from a file: every tensor, strictly; wrapped modules have versions."""
    make, first, second = CASES[case]
    for wrap_source, wrap_model in [(first, second), (second, first)]:
        source, model = wrap_source(api.fill(make(), 1)), wrap_model(api.fill(make(), 2))
        given = source.state_dict()
        if to_file:
            torch.save(given, given := tmp_path / "model.pt")
        report = statedict.load_state_dict(model, given)
        assert report == ([], [])
        assert len(report.loaded) == len(model.state_dict())
        for ours, theirs in zip(ordered(model), ordered(source), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("case", CASES)
def test_a_missing_tensor_is_missing(api, case):
    """Seeing through wrappers hides no hole: without one tensor, exactly its slot is missing."""
    make, wrap_source, wrap_model = CASES[case]
    state, model = dict(wrap_source(make()).state_dict()), wrap_model(make())
    names = list(state)
    del state[names[-1]]
    report = statedict.load_state_dict(model, state, strict=False)
    assert report.missing == [list(model.state_dict())[-1]]
    assert report.unexpected == []


def test_a_training_checkpoint_of_a_wrapped_model(tmp_path, api):
    """Root and wrappers together, and a wrapped module itself as source and as target."""
    model = api.fill(Inner(), 1)
    torch.save({"state_dict": parallel(compiled(model)).state_dict(), "epoch": 1}, tmp_path / "run.pt")
    other = Inner()
    assert statedict.load_state_dict(other, tmp_path / "run.pt").ok
    assert api.bits(other.state_dict()) == api.bits(model.state_dict())
    assert statedict.load_state_dict(parallel(Inner()), compiled(other)).ok
    assert not statedict.diff(parallel(model), compiled(other))._replace(renamed={})


def test_a_uniform_prefix_is_only_suggested(api):
    """`backbone.` on every name is not a wrapper's prefix: nothing is loaded, the report has the call that would load."""
    state = {f"backbone.{name}": value for name, value in Inner().state_dict().items()}
    report = statedict.load_state_dict(Inner(), state, dry_run=True)
    assert not report.ok
    assert not report.loaded
    assert 'rename="backbone.{*p} -> {*p}"' in str(report)
    assert statedict.load_state_dict(Inner(), state, rename="backbone.{*p} -> {*p}").ok


WRAPS = {
    "plain": bare,
    "parallel": parallel,
    "compiled": compiled,
    "both": lambda model: compiled(parallel(model)),
    "the other way": lambda model: parallel(compiled(model)),
    "FSDP inside DeepSpeed": lambda model: deepspeed(fsdp(model)),
}
PAIRS = [(one, other) for one, other in product(WRAPS, WRAPS) if one != other]


def trained(model, *, named):
    """An optimizer that has stepped, with parameters of other numbers in each state."""
    optimizer = torch.optim.AdamW(model.named_parameters() if named else model.parameters(), lr=0.5)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number + 1))
    optimizer.step()
    return optimizer


def averages(model, optimizer):
    return [optimizer.state[parameter]["exp_avg"] for parameter in model.parameters()]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(("saved", "here"), PAIRS)
def test_a_run_resumes_under_another_wrapper(tmp_path, saved, here, named):
    """Model and optimizer resume whatever wrapped the model, by `parameters()` and by `named_parameters()`."""
    model = WRAPS[saved](Inner())
    optimizer = trained(model, named=named)
    with statedict.CheckpointManager(tmp_path) as manager:
        manager.save(1, model=model, optimizer=optimizer)
        other = WRAPS[here](Inner())
        fresh = torch.optim.AdamW(other.named_parameters() if named else other.parameters(), lr=0.1)
        resumed = manager.resume(model=other, optimizer=fresh)
    assert all(report.ok for report in resumed.reports.values())
    assert fresh.param_groups[0]["lr"] == 0.5
    for ours, theirs in zip(averages(other, fresh), averages(model, optimizer), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("saved", "here"), PAIRS)
def test_an_optimizers_names_are_compared_as_a_models(saved, here, strict):
    """By the model's names or the optimizer's own, each state reaches its parameter, in whatever order they are given."""
    model, other = WRAPS[saved](Inner()), WRAPS[here](Inner())
    optimizer = trained(model, named=True)
    state = statedict.state_dict(optimizer, model=model)
    for parameters in (list(other.named_parameters())[::-1], list(other.parameters())[::-1]):
        fresh = torch.optim.AdamW(parameters)
        report = statedict.load_state_dict(fresh, state, strict, model=other)
        assert report.ok
        assert len(report.loaded) == len(list(other.parameters()))
        for ours, theirs in zip(averages(other, fresh), averages(model, optimizer), strict=True):
            assert torch.equal(ours, theirs)


def test_a_real_child_of_an_optimizers_model_stays_a_child():
    """A wrapped model with a child `module` is unwrapped once, for its optimizer too."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.ParameterDict({"w": nn.Parameter(torch.ones(2))})
            self.w = nn.Parameter(torch.ones(2))

    model, other = Twice(), parallel(Twice())
    optimizer = trained(model, named=False)
    fresh = torch.optim.AdamW(list(other.parameters())[::-1])
    assert statedict.load_state_dict(fresh, statedict.state_dict(optimizer, model=model), model=other).ok
    for ours, theirs in zip(averages(other, fresh), averages(model, optimizer), strict=True):
        assert torch.equal(ours, theirs)


def test_an_optimizers_names_that_collide_are_refused():
    """Two saved states that only their wrappers tell apart are not one parameter's; nothing is changed."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([("weight", weight)], lr=0.1)
    group = optimizer.state_dict()["param_groups"][0]
    both = group | {"params": [0, 1], "param_names": ["_forward_module.weight", "_orig_mod.weight"], "lr": 3}
    with pytest.raises(
        CollisionError, match=r"'_forward_module\.weight' and '_orig_mod\.weight' would both become 'weight'"
    ):
        statedict.load_state_dict(optimizer, {"state": {}, "param_groups": [both]})
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_no_advice_for_modules_is_given_for_an_optimizer():
    """What an optimizer's error suggests can be given for an optimizer."""
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    state = statedict.state_dict(trained(nn.Sequential(model), named=False), model=nn.Sequential(model))
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(torch.optim.AdamW(other.parameters()), state, model=other)
    assert "rename=" not in str(caught.value)
    assert "load_state_dict(model" not in str(caught.value)


AVERAGES = {
    "plain": bare,
    "parallel": parallel,
    "averaged": AveragedModel,
    "averaged inside": lambda model: parallel(AveragedModel(model)),
    "averaged outside": lambda model: AveragedModel(compiled(model)),
}


@pytest.mark.parametrize("make", [Inner, HasModule, OnlyModule])
@pytest.mark.parametrize(("saved", "here"), list(product(AVERAGES, AVERAGES)))
def test_an_average_is_a_wrapper(api, make, saved, here):
    """AveragedModel is seen through both ways: its count of updates is loaded where both have it, and is no part of the
    model for `match` and `diff` either."""
    source, model = AVERAGES[saved](api.fill(make(), 1)), AVERAGES[here](api.fill(make(), 2))
    report = statedict.load_state_dict(model, source.state_dict())
    assert report == ([], [])
    for ours, theirs in zip(model.parameters(), source.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    averaged = [name.startswith("averaged") for name in (saved, here)]
    assert len(report.excluded) == (averaged[0] != averaged[1])
    assert ("AveragedModel" in str(report)) is (averaged == [False, True])
    inference = statedict.match(model, source)
    assert not inference.unfilled
    assert not inference.unmatched
    difference = statedict.diff(source, model)
    assert [difference.added, difference.removed, difference.changed] == [{}, {}, {}]
    # with a selection
    assert statedict.load_state_dict(model, source.state_dict(), exclude="*.nothing").ok


def test_a_count_of_ones_own_is_no_wrappers(api):
    """`n_averaged` beside other modules than `module` is a buffer as any other."""
    model = nn.Linear(2, 2)
    model.register_buffer("n_averaged", torch.tensor(3))
    with pytest.raises(LoadError, match=r'Unexpected key.*"n_averaged"'):
        statedict.load_state_dict(nn.Linear(2, 2), model)
    with pytest.raises(LoadError, match=r'Missing key.*"n_averaged"'):
        statedict.load_state_dict(model, nn.Linear(2, 2))
