"""`module_state_dict` and `module_load_state_dict`: PyTorch's effects and words, where random trees do not reach."""

from __future__ import annotations

import copy
from collections import OrderedDict, UserDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from statedict import tree
from statedict.state import StateDict, leaf_of
from statedict.torch import HOST, module_load_state_dict, module_state_dict


def values(state: Any) -> dict[str, Any]:
    return {key: value.tolist() for key, value in state.items()}


def test_positional_arguments_warn_and_count() -> None:
    """Destination, prefix and keep_vars, in that order, as PyTorch still takes them."""
    made, destination = nn.Linear(1, 1), OrderedDict[str, Any]()
    with pytest.warns(FutureWarning, match="Positional args are being deprecated"):
        found = module_state_dict(made, destination, "x.", True)
    assert found is destination
    assert found["x.weight"] is made.weight
    with pytest.warns(FutureWarning, match="Positional args are being deprecated"):
        assert list(module_state_dict(made, None, "y.", prefix="z.")) == ["z.weight", "z.bias"]


def test_a_destination_without_metadata_gets_none() -> None:
    """A plain dict stays a plain dict; one with `_metadata` has the new entries added."""
    plain: dict[str, Any] = {"kept": 1}
    assert module_state_dict(nn.Sequential(nn.Linear(1, 1)), destination=plain) is plain
    assert list(plain) == ["kept", "0.weight", "0.bias"]
    state = StateDict({}, {"old": 1})
    module_state_dict(nn.Sequential(nn.Linear(1, 1)), destination=state)
    assert dict(state._metadata or {}) == {"old": 1, "": {"version": 1}, "0": {"version": 1}}


def test_what_is_no_mapping_is_refused_as_pytorch_does() -> None:
    """A state that is not a mapping is refused in PyTorch's words; any mapping is accepted."""
    made = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like, got <class 'list'>"):
        module_load_state_dict(made, [])  # type: ignore[arg-type]
    found = module_load_state_dict(made, UserDict(made.state_dict()))
    assert repr(found) == "<All keys matched successfully>"
    assert type(found) is type(made.load_state_dict(made.state_dict()))


def test_names_that_are_no_strings_fail_as_in_pytorch() -> None:
    """A name that is not a string raises PyTorch's error, after the root's own tensors were loaded."""
    for load in (nn.Module.load_state_dict, module_load_state_dict):
        made = nn.Linear(1, 1)
        with pytest.raises(AttributeError, match="'int' object has no attribute 'startswith'"):
            load(made, {"weight": torch.ones(1, 1), 3: 1})
        assert made.weight.item() == 1


def test_a_module_that_was_not_initialised_fails_as_in_pytorch() -> None:
    """A module without `__init__`, or from an old pickle that lacks a registry, raises PyTorch's error."""

    class Hollow(nn.Module):
        def __init__(self) -> None:
            pass

    for name in ("_state_dict_pre_hooks", "_load_state_dict_post_hooks"):
        old = nn.Linear(1, 1)
        del old.__dict__[name]
        for made in (Hollow(), old):
            for acts in (
                (nn.Module.state_dict, module_state_dict),
                (lambda m: m.load_state_dict({}, False), lambda m: module_load_state_dict(m, {}, False)),
            ):
                assert attempt(acts[0], made) == attempt(acts[1], made)


def attempt(act: Any, made: nn.Module) -> Any:
    try:
        act(made)
    except AttributeError as error:
        return str(error)
    return None


def test_a_module_that_contains_itself_does_not_end() -> None:
    """A module that contains itself raises RecursionError, as in PyTorch."""
    made = nn.Linear(1, 1)
    made.again = made
    for act in (module_state_dict, lambda m: module_load_state_dict(m, {})):
        with pytest.raises(RecursionError):
            act(made)


def test_copying_to_meta_warns() -> None:
    """Copying to a meta tensor warns in PyTorch's words, and nothing is reported as missing."""
    made = nn.Linear(1, 1, device="meta")
    with pytest.warns(
        UserWarning, match="for (weight|bias): copying from a non-meta parameter in the checkpoint to a meta"
    ):
        found = module_load_state_dict(made, nn.Linear(1, 1).state_dict())
    assert found.missing_keys == []


def test_assign_marks_the_callers_metadata() -> None:
    """As in PyTorch, `assign` marks the caller's metadata, so that a later load without it assigns too, module by module."""
    for load in (nn.Module.load_state_dict, module_load_state_dict):
        one, two = (nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)) for _ in range(2))
        state = copy.deepcopy(one.state_dict())
        load(one, state, assign=True)
        assert state._metadata["0"] == {"version": 1, "assign_to_params_buffers": True}
        del state._metadata["0"]["assign_to_params_buffers"]
        load(two, state)
        assert two[0].weight.data_ptr() != state["0.weight"].data_ptr()
        assert two[1].weight.data_ptr() == state["1.weight"].data_ptr()


def test_failures_of_one_copy_are_lines_of_text() -> None:
    """A copy that fails among ordinary tensors is a line of the error; those before and after it are loaded."""
    with torch.inference_mode():
        frozen = torch.zeros(2)
    texts = []
    for load in (nn.Module.load_state_dict, module_load_state_dict):
        made = nn.ParameterList([torch.zeros(2), torch.zeros(2), torch.zeros(2)])
        made._parameters["1"] = frozen
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor") as caught:
            load(made, {name: torch.ones(2) for name in "012"})
        texts.append(str(caught.value))
        assert [made._parameters[name].tolist() for name in "02"] == [[1, 1], [1, 1]]
    assert texts[0] == texts[1]


@pytest.fixture
def swapping() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("swapping")
@pytest.mark.parametrize("assign", [False, True])
def test_swapping_is_pytorchs(assign: bool) -> None:
    """Identities stay, contents are exchanged, failures read the same."""
    import weakref

    texts = []
    for load in (nn.Module.load_state_dict, module_load_state_dict):
        made = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        objects = [id(value) for value in made.parameters()]
        held = weakref.ref(made[1].bias)
        with pytest.raises(RuntimeError, match="While swapping the parameter") as caught:
            load(made, {key: torch.ones_like(value) for key, value in made.state_dict().items()}, assign=assign)
        assert held() is made[1].bias
        texts.append(str(caught.value))
        assert [id(value) for value in made.parameters()] == objects
        assert made[0].weight.tolist() == [[1, 1], [1, 1]]
    assert texts[0] == texts[1]


def test_modes_see_each_copy() -> None:
    """Under a function mode every copy is an operation of its own, as in PyTorch."""
    from torch.overrides import TorchFunctionMode

    class Noting(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(getattr(func, "__name__", str(func)))
            return func(*args, **(kwargs or {}))

    counts = []
    for load in (nn.Module.load_state_dict, module_load_state_dict):
        made = nn.Linear(1, 1)
        mode = Noting()
        mode.seen = []
        with mode:
            load(made, {"weight": torch.ones(1, 1), "bias": torch.ones(1)})
        counts.append(mode.seen.count("copy_"))
    assert counts == [2, 2]


def test_a_lazy_statedict_is_loaded() -> None:
    """The leaves of a lazy StateDict are read by the exact load, too."""
    made = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    wanted = {key: torch.ones_like(value) for key, value in made.state_dict().items()}
    lazy = StateDict({key: leaf_of(value) for key, value in wanted.items()})
    module_load_state_dict(made, lazy)
    assert values(made.state_dict()) == values(wanted)
    made[0].register_load_state_dict_pre_hook(lambda m, state, prefix, *rest: state[prefix + "bias"].mul_(1))
    module_load_state_dict(made, lazy)
    assert values(made.state_dict()) == values(wanted)
    other = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    other.load_state_dict(lazy)
    assert values(other.state_dict()) == values(wanted)


@pytest.mark.filterwarnings("ignore")
def test_modules_whose_registries_are_no_dicts() -> None:
    """TorchScript's, fx's and compiled modules are captured and loaded as PyTorch does it."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + self.count

    for made in (
        torch.jit.script(Small()),
        torch.jit.trace(Small(), torch.ones(1, 2)),
        torch.fx.symbolic_trace(Small()),
        torch.compile(Small()),
        nn.DataParallel(Small()),
    ):
        theirs, ours = made.state_dict(), module_state_dict(made)
        assert (values(theirs), theirs._metadata, type(theirs)) == (values(ours), ours._metadata, type(ours))
        for number, load in enumerate((module_load_state_dict, lambda m, s: tree.write(HOST, m, s))):
            load(made, {key: torch.full_like(value, number) for key, value in theirs.items()})
            assert {value for row in values(made.state_dict()).values() for value in _flat(row)} == {number}


def _flat(row: Any) -> Iterator[Any]:
    for item in row:
        yield from _flat(item) if isinstance(item, list) else [item]


def test_overriding_with_an_attribute_counts() -> None:
    """A method that hangs on the instance is called, as PEFT's and others' are."""
    made = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    made[0].state_dict = lambda *args, destination, prefix, keep_vars: destination.update({prefix + "mine": 1})
    made[1]._save_to_state_dict = lambda destination, prefix, keep_vars: destination.update({prefix + "own": 2})
    assert dict(module_state_dict(made)) == {"0.mine": 1, "1.own": 2}
    made[1]._load_from_state_dict = lambda state, prefix, *rest: seen.append(dict(state))
    seen: list[Any] = []
    module_load_state_dict(made, {"0.weight": torch.ones(1, 1), "0.bias": torch.ones(1), "1.x": 3})
    assert seen == [{"1.x": 3}]
