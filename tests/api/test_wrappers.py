"""The ten wrapper cases: names that differ by wrappers only load strictly, with no argument."""

import pytest
import torch
from torch import nn

import statedict


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
    """`backbone.` on every name is no wrapper: nothing is loaded, and the report has the call that would do it."""
    state = {f"backbone.{name}": value for name, value in Inner().state_dict().items()}
    report = statedict.load_state_dict(Inner(), state, dry_run=True)
    assert not report.ok
    assert not report.loaded
    assert 'rename="backbone.{*p} -> {*p}"' in str(report)
    assert statedict.load_state_dict(Inner(), state, rename="backbone.{*p} -> {*p}").ok
