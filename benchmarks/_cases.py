"""The measured models by name; each is extreme in a different way.

*wide* has many modules, *many* many small tensors, *mid* is an ordinary network in three dtypes, *big* is few large tensors,
*real* is a published file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch


class Size(NamedTuple):
    """The sizes of the cases.

    Attributes:
        linears: modules of *wide*; tensors: tensors of *many*; layers: tensors of *mid*; mid, big: bytes of these cases.
        rounds: how often everything is measured, after one warm-up run.
        seconds: after this time, a comparison ends with the current round.
        slow: also measure libraries that take ten times as long as the others.
    """

    linears: int
    tensors: int
    layers: int
    mid: int
    big: int
    rounds: int
    seconds: float
    slow: bool


SIZES = {
    "full": Size(16_000, 32_000, 400, 500 << 20, 1 << 30, 5, 60, True),
    "quick": Size(4_000, 8_000, 400, 100 << 20, 256 << 20, 3, 1, False),
    "tiny": Size(3, 5, 6, 1 << 14, 1 << 16, 1, 0, True),
}


class Flat(torch.nn.Module):
    """A module with the given parameters, by name."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))


def wide(size: Size) -> torch.nn.Module:
    return torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(size.linears)])


def many(size: Size) -> torch.nn.Module:
    return Flat({f"weight{i}": torch.randn(4, 4) for i in range(size.tensors)})


def mid(size: Size) -> torch.nn.Module:
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    # 4 + 2 + 2 bytes: three layers of one width take 8 bytes an element.
    width = max(1, round((size.mid / size.layers * 3 / 8) ** 0.5))
    return Flat({f"weight{i}": torch.randn(width, width).to(dtypes[i % 3]) for i in range(size.layers)})


def big(size: Size) -> torch.nn.Module:
    return Flat({f"weight{i}": torch.randn(64, size.big // (64 * 64 * 4)) for i in range(64)})


def module_of(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Return a module with the given state; dots in names become submodules."""
    root = torch.nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = root
        for step in path:
            if step not in module._modules:
                module.add_module(step, torch.nn.Module())
            module = module.get_submodule(step)
        module.register_buffer(last, tensor.clone())
    return root


CASES: dict[str, Callable[[Size], torch.nn.Module]] = {"wide": wide, "many": many, "mid": mid, "big": big}
