"""The measured operations, each with the ways to do it; the first way is this library's.

An operation is a function that takes a Bench and returns actions by name; the table is at the end. Libraries that need much
longer are marked `slow` and skipped in a quick run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any
from zipfile import ZipFile

import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file
from torch.serialization import set_crc32_options

import statedict

from . import _limits
from ._bench import Bench, touched
from ._measure import Action, Loaded

OURS = "statedict"
SLOW = frozenset({"DCP"})
Ways = dict[str, Action]


def state_dict(bench: Bench) -> Ways:
    return {OURS: lambda: statedict.state_dict(bench.model), "torch": bench.model.state_dict}


def load_state_dict(bench: Bench) -> Ways:
    return {
        OURS: lambda: statedict.load_state_dict(bench.target, bench.state),
        "torch": lambda: bench.target.load_state_dict(bench.state),
        "limit: copy_ in memory": lambda: _limits.copied(bench),
    }


def snapshot(bench: Bench) -> Ways:
    kept = statedict.snapshot(bench.model)
    return {
        "statedict, into reused memory": lambda: statedict.snapshot(bench.model, out=kept),
        OURS: lambda: statedict.snapshot(bench.model),
        "torch: deepcopy of the state dict": lambda: deepcopy(bench.model.state_dict()),
        "limit: copy_ in memory": lambda: _limits.copied(bench),
    }


def save(bench: Bench) -> Ways:
    """Every way replaces the file of the one before it. The default is durable; torch and safetensors never flush."""
    return {
        OURS: lambda: statedict.save(bench.state, bench.scratch),
        "statedict, durable=False": lambda: statedict.save(bench.state, bench.scratch, durable=False),
        "torch": lambda: torch.save(bench.state, bench.scratch),
        "torch, no checksums": lambda: _saved_without_checksums(bench),
        "safetensors": lambda: save_file(bench.state, bench.scratch),
        "DCP": lambda: dcp.save(bench.state, checkpoint_id=bench.folder / "dcp-scratch", no_dist=True),
        "limit: write": lambda: _limits.written(bench),
        "limit: write and fsync": lambda: _limits.written(bench, durable=True),
    }


def load(bench: Bench) -> Ways:
    def read(values: dict[str, torch.Tensor]) -> Loaded:
        touched(values.values())
        return Loaded(values, sum(value.nbytes for value in values.values()))

    return {
        OURS: lambda: read(statedict.load(bench.torch_file)),
        "statedict, unverified": lambda: read(statedict.load(bench.torch_file, verify=False)),
        "statedict, mapped": lambda: read(statedict.load(bench.torch_file, mmap=True)),
        "torch": lambda: read(torch.load(bench.torch_file)),
        "torch, mapped": lambda: read(torch.load(bench.torch_file, mmap=True)),
        "torch, weights_only=False": lambda: read(torch.load(bench.torch_file, weights_only=False)),
        "safetensors": lambda: read(load_file(bench.safetensors_file)),
        "limit: read": lambda: _limits.read(bench),
    }


def load_into_model(bench: Bench) -> Ways:
    target = bench.target
    return {
        OURS: lambda: statedict.load_state_dict(target, bench.torch_file),
        "statedict, unverified": lambda: statedict.load_state_dict(target, bench.torch_file, verify=False),
        "statedict, a file of ours": lambda: statedict.load_state_dict(target, bench.our_file),
        "torch": lambda: target.load_state_dict(torch.load(bench.torch_file)),
        "torch, mapped": lambda: target.load_state_dict(torch.load(bench.torch_file, mmap=True)),
        "safetensors": lambda: load_model(target, bench.safetensors_file),
        "DCP": lambda: dcp.load(dict(target.state_dict()), checkpoint_id=bench.dcp_folder, no_dist=True),
        "limit: copy_ in memory": lambda: _limits.copied(bench),
    }


def names_and_shapes(bench: Bench) -> Ways:
    return {
        OURS: lambda: _listed(bench.torch_file),
        "torch, mapped": lambda: {k: v.shape for k, v in torch.load(bench.torch_file, mmap=True).items()},
        "safetensors": lambda: _listed_by_safetensors(bench),
    }


def verify(bench: Bench) -> Ways:
    return {
        OURS: lambda: _verified(bench.torch_file),
        "zipfile.testzip": lambda: ZipFile(bench.torch_file).testzip(),
    }


def cold_start(bench: Bench) -> Ways:
    return {
        OURS: lambda: _run(f"import statedict; list(statedict.open({str(bench.torch_file)!r}).state_dict())"),
        "torch, mapped": lambda: _run(f"import torch; list(torch.load({str(bench.torch_file)!r}, mmap=True))"),
    }


def _saved_without_checksums(bench: Bench) -> None:
    set_crc32_options(False)
    try:
        torch.save(bench.state, bench.scratch)
    finally:
        set_crc32_options(True)


def _listed(path: Any) -> dict[str, tuple[int, ...]]:
    with statedict.open(path) as checkpoint:
        state = checkpoint.state_dict()
        return {name: state.spec(name).shape for name in state}


def _listed_by_safetensors(bench: Bench) -> dict[str, list[int]]:
    with safe_open(bench.safetensors_file, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # no mapping


def _verified(path: Any) -> None:
    with statedict.open(path) as checkpoint:
        checkpoint.verify()


def _run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


OPERATIONS: dict[str, Callable[[Bench], Ways]] = {
    "state_dict": state_dict,
    "load_state_dict": load_state_dict,
    "snapshot": snapshot,
    "save": save,
    "load": load,
    "load into a model": load_into_model,
    "list": names_and_shapes,
    "verify": verify,
    "cold start": cold_start,
}
