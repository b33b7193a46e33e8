"""Every module that PyTorch ships, captured and loaded by PyTorch and by this engine side by side."""

from __future__ import annotations

import copy
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing._internal.common_modules import module_db

from statedict import tree
from statedict.torch import HOST, module_load_state_dict, module_state_dict

their_state_dict = torch.nn.Module.state_dict
their_load_state_dict = torch.nn.Module.load_state_dict

# Constructing some warns of what is deprecated, which is not ours to test.
pytestmark = pytest.mark.filterwarnings("ignore")

Edit = Callable[["OrderedDict[str, Any]", random.Random], None]


def modules(info: Any) -> list[torch.nn.Module]:
    """A few modules of the class, made as PyTorch's own tests make them."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = info.module_inputs_func(info, torch.device("cpu"), torch.float32, requires_grad=False, training=True)
        made = [info.module_cls(*i.constructor_input.args, **i.constructor_input.kwargs) for i in inputs[:3]]
    return [module for module in made if isinstance(module, torch.nn.Module)]


def filled(module: torch.nn.Module, seed: int) -> OrderedDict[str, Any]:
    """A state that fits the module, with other values than it has."""
    state: OrderedDict[str, Any] = their_state_dict(module)
    generator = torch.Generator().manual_seed(seed)
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value):
            drawn = torch.rand(value.shape, generator=generator) * 9
            state[key] = drawn.to(value.dtype)
    return state


def drop(state: OrderedDict[str, Any], chance: random.Random) -> None:
    for key in chance.sample(list(state), min(1, len(state))):
        del state[key]


def add(state: OrderedDict[str, Any], chance: random.Random) -> None:
    state["stranger"] = torch.ones(1)
    if state:
        state[chance.choice(list(state)) + ".below"] = torch.ones(1)


def resize(state: OrderedDict[str, Any], chance: random.Random) -> None:
    for key in chance.sample(list(state), min(2, len(state))):
        state[key] = torch.ones(7, 5, 3)


def spoil(state: OrderedDict[str, Any], chance: random.Random) -> None:
    for key in chance.sample(list(state), min(1, len(state))):
        state[key] = "text"


def unversioned(state: OrderedDict[str, Any], chance: random.Random) -> None:
    del state._metadata  # type: ignore[attr-defined]


def older(state: OrderedDict[str, Any], chance: random.Random) -> None:
    for entry in state._metadata.values():  # type: ignore[attr-defined]
        entry["version"] = 1
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]


def fitting(state: OrderedDict[str, Any], chance: random.Random) -> None:
    """As it is."""


EDITS: list[Edit] = [fitting, drop, add, resize, spoil, unversioned, older]


def attempt(act: Callable[[], Any]) -> tuple[str, Any]:
    try:
        found = act()
        return "returned", (found.missing_keys, found.unexpected_keys, repr(found))
    except (RuntimeError, AttributeError, TypeError) as error:
        return type(error).__name__, str(error)


def elements(module: torch.nn.Module) -> dict[str, Any]:
    """Values, kinds and identities of all parameters and buffers."""
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for name, value in (*part._parameters.items(), *part._buffers.items()):
            lazy = value is None or torch.nn.parameter.is_lazy(value)
            facts = None if lazy else (value.tolist(), value.dtype, value.stride(), value.requires_grad)
            found[f"{path}.{name}"] = (type(value), facts)
    return found


def identities(module: torch.nn.Module) -> list[int]:
    return [id(value) for part in module.modules() for value in (*part._parameters.values(), *part._buffers.values())]


def described(state: Any) -> Any:
    return [
        (key, type(value), None if torch.nn.parameter.is_lazy(value) else value.tolist(), value.requires_grad)
        if isinstance(value, torch.Tensor)
        else (key, repr(value))
        for key, value in state.items()
    ], getattr(state, "_metadata", None)


def soundly(module: torch.nn.Module, state: Any, assign: bool) -> Any:
    outcome = tree.write(HOST, module, state, assign=assign)
    return HOST.incompatible(outcome.missing, outcome.unexpected)


@pytest.mark.parametrize("info", module_db, ids=lambda info: info.formatted_name)
def test_captured_as_pytorch_does(info: Any) -> None:
    """Names, order, values, metadata and aliasing are PyTorch's, and the state loads back as itself."""
    for module in modules(info):
        for keep_vars in (False, True):
            theirs, ours = their_state_dict(module, keep_vars=keep_vars), module_state_dict(module, keep_vars=keep_vars)
            assert described(theirs) == described(ours)
            for key, value in theirs.items():
                if isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value):
                    assert value.data_ptr() == ours[key].data_ptr()
        before = elements(module)
        tree.write(HOST, module, module_state_dict(module))
        assert elements(module) == before


@pytest.mark.parametrize("info", module_db, ids=lambda info: info.formatted_name)
def test_loaded_as_pytorch_does(info: Any) -> None:
    """By exact rules: result, error text and the module afterwards are PyTorch's, whatever is wrong with the state."""
    for module in modules(info):
        for number, edit in enumerate(EDITS):
            for strict, assign in ((True, False), (False, False), (True, True)):
                models = [module, copy.deepcopy(module)]
                results = []
                for model, load in zip(models, (their_load_state_dict, module_load_state_dict)):
                    state = filled(model, number)
                    edit(state, random.Random(number))
                    results.append(attempt(lambda: load(model, state, strict=strict, assign=assign)))  # noqa: B023
                assert results[0] == results[1]
                assert elements(models[0]) == elements(models[1])


@pytest.mark.parametrize("info", module_db, ids=lambda info: info.formatted_name)
def test_loaded_wholly_or_not_at_all(info: Any) -> None:
    """By sound rules: what PyTorch accepts is loaded as PyTorch loads it; what it refuses changes nothing at all."""
    for module in modules(info):
        for number, edit in enumerate(EDITS):
            for assign in (False, True):
                if assign and any(map(torch.nn.parameter.is_lazy, module.parameters())):
                    # PyTorch fails to assign a parameter that is not initialised; here it takes the place of another.
                    continue
                twin = copy.deepcopy(module)
                state, their_state = filled(module, number), filled(twin, number)
                edit(state, random.Random(number))
                edit(their_state, random.Random(number))
                before, objects, source = elements(module), identities(module), described(state)
                theirs = attempt(lambda: their_load_state_dict(twin, their_state, assign=assign))  # noqa: B023
                ours = attempt(lambda: soundly(module, state, assign))  # noqa: B023
                assert ours == ("LoadError" if theirs[0] == "RuntimeError" else theirs[0], theirs[1])
                assert elements(module) == (elements(twin) if theirs[0] == "returned" else before)
                assert theirs[0] == "returned" or identities(module) == objects
                assert described(state) == source
