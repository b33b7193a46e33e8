"""What capturing and loading cost in wide models: linear, and near to what copying alone costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from statedict import tree
from statedict.torch import HOST, module_load_state_dict, module_state_dict


class Hooked(nn.Linear):
    """A module that needs the walk that can do everything."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_load_state_dict_pre_hook(lambda *args: None)
        self.register_state_dict_pre_hook(lambda *args: None)


def seconds(act: Callable[[], Any], repeat: int = 3) -> float:
    """Processor time of this thread alone: the machine may be busy with other things."""
    best = float("inf")
    for _ in range(repeat):
        start = time.thread_time()
        act()
        best = min(best, time.thread_time() - start)
    return best


def wide(count: int, layer: Callable[[], nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(layer() for _ in range(count))


ACTS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "read": lambda made, state: module_state_dict(made),
    "exact": lambda made, state: module_load_state_dict(made, state),
    "sound": lambda made, state: tree.write(HOST, made, state),
    "assign": lambda made, state: tree.write(HOST, made, state, assign=True),
    "missing": lambda made, state: tree.write(HOST, made, dict(list(state.items())[1:]), judge=lambda outcome: None),
    "unexpected": lambda made, state: module_load_state_dict(made, state | {"x.y": torch.ones(1)}, strict=False),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("layer", [lambda: nn.Linear(2, 2), Hooked], ids=["plain", "hooked"])
def test_time_grows_with_size(act: str, layer: Callable[[], nn.Module]) -> None:
    """Eight times the modules take about eight times as long; PyTorch's own loading takes sixty-four times."""
    times = []
    for count in (250, 2000):
        made = wide(count, layer)
        state = {key: torch.ones_like(value) for key, value in made.state_dict().items()}
        times.append(seconds(lambda: ACTS[act](made, state)))  # noqa: B023
    assert times[1] / times[0] < 30


def test_dotted_names_are_dealt_in_one_pass() -> None:
    """Names with dots are divided among the children in one pass, not by a scan for each child."""
    times = []
    for count in (250, 2000):
        made = nn.Module()
        made._modules.update({f"layer.{number}": nn.Linear(2, 2) for number in range(count)})
        state = {key: torch.ones_like(value) for key, value in made.state_dict().items()}
        times.append(seconds(lambda: tree.write(HOST, made, state)))  # noqa: B023
    assert times[1] / times[0] < 30


def test_loading_costs_little_more_than_copying() -> None:
    """Three times the copy of all tensors in one call and a walk is the aim; twice that is allowed on a busy machine."""
    made = wide(4000, lambda: nn.Linear(4, 4))
    state = {key: torch.ones_like(value) for key, value in made.state_dict().items()}
    tensors, values = list(made.parameters()), list(state.values())

    def bare() -> None:
        with torch.no_grad():
            torch._foreach_copy_(tensors, values)
        for module in made.modules():
            for _ in (*module._parameters.items(), *module._buffers.items()):
                pass

    alone = seconds(bare, 7)
    assert seconds(lambda: tree.write(HOST, made, state), 7) < 6 * alone
    assert seconds(lambda: module_load_state_dict(made, state), 7) < 6 * alone
    assert seconds(lambda: module_state_dict(made), 7) < 1.2 * seconds(made.state_dict, 7)
