"""The Host of `torch.nn` keeps the laws of HostSuite."""

from __future__ import annotations

from typing import Any

import torch

from statedict.testing import HostSuite
from statedict.torch import HOST


class TestTorchHost(HostSuite):
    host = HOST

    def module(self) -> torch.nn.Module:
        return torch.nn.Module()

    def parameter(self, array: Any) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.from_numpy(array))

    def buffer(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array)

    def numpy(self, value: torch.Tensor) -> Any:
        return value.detach().numpy()
