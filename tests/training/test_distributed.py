"""A run of several processes: one checkpoint of all, resumed on any number of them."""

import subprocess
import sys

import pytest
import torch

import statedict
from statedict import CheckpointManager

WORKER = """
import os, sys, torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from statedict import CheckpointManager, last
rank, size, directory, store, phase, kind = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:7]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
if kind == "fsdp":
    mesh = dist.device_mesh.init_device_mesh("cpu", (size,))
    model = fully_shard(model, mesh=mesh)
else:
    model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
def step(seed):
    torch.manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()
with CheckpointManager(directory, keep=last(2)) as manager:
    if phase == "save":
        for number in range(3):
            step(number)
            manager.save(number, metrics={"n": number}, model=model, optimizer=optimizer, epoch=number)
    else:
        step(100)
        resumed = manager.resume(model=model, optimizer=optimizer)
        assert (2, {"epoch": 2}) == (resumed.step, resumed.values), resumed
    total = sum((p.full_tensor() if kind == "fsdp" else p).double().sum() for p in model.parameters())
    if rank == 0:
        print(f"{float(total):.10f}", flush=True)
dist.destroy_process_group()
"""


def run(size, directory, store, phase, kind):
    command = [sys.executable, "-W", "ignore", "-c", WORKER]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(size), str(directory), str(store), phase, kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    done = [worker.communicate(timeout=200) for worker in workers]
    for worker, (_, problem) in zip(workers, done):
        assert worker.returncode == 0, problem
    return done[0][0].strip()


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    """Two ranks save, four resume, and all parts are there; statedict.open reads them without torch.distributed."""
    directory = tmp_path / "run"
    saved = run(2, directory, tmp_path / "store1", "save", "fsdp")
    names = {path.name for path in directory.iterdir()}
    assert names == {".lock", "step-0000000001", "step-0000000002"}
    with statedict.open(directory / "step-0000000002" / "model") as checkpoint:
        state = checkpoint.state_dict().torch()
        assert list(state) == ["0.weight", "0.bias", "1.weight", "1.bias"]
        assert f"{float(sum(value.double().sum() for value in state.values())):.10f}" == saved
    resumed = run(4, directory, tmp_path / "store2", "resume", "fsdp")
    assert resumed == saved


@pytest.mark.slow
def test_one_process_resumes_what_several_saved(tmp_path):
    """A checkpoint of ranks loads into a bare model of one process."""
    saved = run(2, tmp_path / "run", tmp_path / "store", "save", "ddp")
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with CheckpointManager(tmp_path / "run") as manager:
        assert manager.resume(model=model, optimizer=optimizer).step == 2
    assert f"{float(sum(p.detach().double().sum() for p in model.parameters())):.10f}" == saved
    assert len(optimizer.state) == 4
