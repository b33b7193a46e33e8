"""The data for one case: two models of the same shape, and the first one's state in every file format."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

import statedict


class Bench:
    """A case with its models and files.

    Attributes:
        model, target: two equal models; states are loaded into `target`.
        state: the model's state dict.
        torch_file, our_file, safetensors_file, dcp_folder: the saved state.
        scratch: the directory for saves.
        device: an additional device to load to and save from.
    """

    def __init__(self, model: torch.nn.Module, folder: Path, *, slow: bool, device: str) -> None:
        self.model, self.target = model, deepcopy(model)
        self.state = dict(model.state_dict())
        self.nbytes = sum(tensor.nbytes for tensor in self.state.values())
        self.folder, self.device = folder, device
        self.torch_file, self.our_file = folder / "torch.pt", folder / "ours.pt"
        self.safetensors_file, self.dcp_folder = folder / "model.safetensors", folder / "dcp"
        self.scratch = folder / "scratch"
        torch.save(self.state, self.torch_file)
        statedict.save(self.state, self.our_file, durable=False)
        save_file(self.state, self.safetensors_file)
        if slow:
            dcp.save(self.state, checkpoint_id=self.dcp_folder, no_dist=True)

    def close(self) -> None:
        shutil.rmtree(self.folder)


def touched(tensors: Iterable[torch.Tensor]) -> None:
    """Read one byte of every page: until then, a tensor over a mapped file costs nothing."""
    for tensor in tensors:
        if tensor.nbytes >= 4096:
            tensor.reshape(-1).view(torch.uint8)[::4096].sum()
