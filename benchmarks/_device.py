"""Operations with another device: load files to it and save from it. Every action ends when the device has finished."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from safetensors.torch import load_file, load_model, save_file

import statedict

from ._bench import Bench
from ._measure import Action

Ways = dict[str, Action]


def load_into_model(bench: Bench) -> Ways:
    target = deepcopy(bench.target).to(bench.device)
    pinned, there = _buffers(bench)
    return _awaited(
        bench,
        {
            "statedict": lambda: statedict.load_state_dict(target, bench.torch_file),
            "statedict, unverified": lambda: statedict.load_state_dict(target, bench.torch_file, verify=False),
            "torch": lambda: target.load_state_dict(torch.load(bench.torch_file, map_location=bench.device)),
            "torch, mapped": lambda: target.load_state_dict(torch.load(bench.torch_file, mmap=True)),
            "safetensors": lambda: load_model(target, bench.safetensors_file, device=bench.device),
            "limit: copy of pinned memory": lambda: there.copy_(pinned, non_blocking=True),
        },
    )


def load(bench: Bench) -> Ways:
    return _awaited(
        bench,
        {
            "statedict": lambda: statedict.load(bench.torch_file, map_location=bench.device),
            "statedict, unverified": lambda: statedict.load(bench.torch_file, map_location=bench.device, verify=False),
            "torch": lambda: torch.load(bench.torch_file, map_location=bench.device),
            "safetensors": lambda: load_file(bench.safetensors_file, device=bench.device),
        },
    )


def save(bench: Bench) -> Ways:
    state = {name: tensor.to(bench.device) for name, tensor in bench.state.items()}
    return _awaited(
        bench,
        {
            "statedict": lambda: statedict.save(state, bench.scratch, durable=False),
            "torch": lambda: torch.save(state, bench.scratch),
            "safetensors": lambda: save_file(state, bench.scratch),
        },
    )


def _buffers(bench: Bench) -> tuple[torch.Tensor, torch.Tensor]:
    here = torch.ones(bench.nbytes, dtype=torch.uint8, device="cpu", pin_memory=bench.device != "cpu")
    return here, torch.empty_like(here, device=bench.device)


def _awaited(bench: Bench, ways: Ways) -> Ways:
    def awaited(act: Action) -> Action:
        def whole() -> object:
            result = act()
            if bench.device != "cpu":
                torch.accelerator.synchronize()
            return result

        return whole

    return {name: awaited(act) for name, act in ways.items()}


OPERATIONS: dict[str, Callable[[Bench], Ways]] = {
    "load into a model on the device": load_into_model,
    "load onto the device": load,
    "save from the device": save,
}
