"""Kills a save once after every system call that it makes, and tells what came of it.

    python -m tests.training.calls
    python -m tests.training.calls --asynchronous --every 25

A child that saves is traced by its parent (ptrace), which kills it when its first call has returned, then another when its
second has, and so on to the last, in all of its threads. After each kill another child resumes, and compares every value.

Exit code 1, and a line for each, where a resume failed, was not from the last durable step or later, or had other values,
or where more than one directory of a dead save was left.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch
from tests.forked import child

from statedict import CheckpointManager, last

PTRACE = ctypes.CDLL(None, use_errno=True).ptrace
PTRACE.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
PTRACE.restype = ctypes.c_long
TRACEME, SYSCALL, SETOPTIONS = 0, 24, 0x4200
# Stops at system calls are told from others, new threads are traced too, and nothing outlives its tracer.
OPTIONS = 0x1 | 0x8 | 0x100000
AT_CALL = signal.SIGTRAP | 0x80
WALL = 0x40000000


def trace(request: int, process: int, data: int = 0) -> None:
    if PTRACE(request, process, None, data) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def traced(act: Callable[[], object]) -> None:
    """Stop before doing it, for the tracer to begin."""
    trace(TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    act()


def dies_after(count: int, act: Callable[[], object]) -> bool:
    """Do it in a child that is killed when its `count`-th system call has returned; False where it ended before."""
    process = child(partial(traced, act))
    os.waitpid(process, 0)
    trace(SETOPTIONS, process, OPTIONS)
    trace(SYSCALL, process)
    inside: set[int] = set()
    while True:
        thread, status = os.waitpid(-1, WALL)
        if not os.WIFSTOPPED(status):
            if thread == process:
                assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the save failed by itself"
                return os.WIFSIGNALED(status)
            continue
        pending = os.WSTOPSIG(status)
        if pending == AT_CALL:
            pending = 0
            if thread in inside:
                count -= 1
                if not count:
                    os.kill(process, signal.SIGKILL)
            inside ^= {thread}
        elif pending in (signal.SIGTRAP, signal.SIGSTOP):
            pending = 0
        try:
            trace(SYSCALL, thread, pending)
        except ProcessLookupError:
            # It was killed, and its end is the next thing to hear of.
            continue


def values(step: int) -> torch.nn.Module:
    """A model whose values are the step's."""
    model = torch.nn.Linear(40, 40)
    torch.nn.init.constant_(model.weight, step)
    torch.nn.init.constant_(model.bias, -step)
    return model


def save(directory: Path, step: int, asynchronous: bool) -> None:
    with CheckpointManager(directory, keep=last(2), asynchronous=asynchronous) as manager:
        manager.save(step, model=values(step), epoch=step)


def resume(directory: Path, newest: int) -> int:
    """The step that a new process resumes from, which is `newest` or the one before; raises where anything is wrong."""
    model = values(-1)
    with CheckpointManager(directory) as manager:
        resumed = manager.resume(model=model)
    assert resumed is not None
    assert not resumed.passed_over
    assert resumed.step in (newest - 1, newest), f"resumed from {resumed.step}, and {newest - 1} was durable"
    assert dict(resumed.values) == {"epoch": resumed.step}
    expected = values(resumed.step)
    assert torch.equal(model.weight, expected.weight)
    assert torch.equal(model.bias, expected.bias)
    return resumed.step


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.training.calls", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--asynchronous", action="store_true", help="a thread saves")
    parser.add_argument("--every", type=int, default=1, help="only after every so many calls")
    parser.add_argument("--folder", help="where to save; a temporary folder of the system otherwise")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wrong, new, began = [], 0, time.perf_counter()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        run, step, count = Path(folder, "run"), 0, 1
        for step in range(3):
            save(run, step, asked.asynchronous)
        resume(run, step)
        while dies_after(count, partial(save, run, step + 1, asked.asynchronous)):
            left = [path.name for path in run.iterdir() if path.name.startswith((".saving-", ".trash-", ".old-"))]
            if len(left) > 1:
                wrong.append(f"killed after call {count}: leftovers pile up: {left}")
            if os.waitpid(child(partial(resume, run, step + 1)), 0)[1]:
                wrong.append(f"killed after call {count}: see above")
            if (run / f"step-{step + 1:010d}").exists():
                # A save in peace, so that the next one has as many old checkpoints to delete, and as many calls.
                step, new = step + 2, new + 1
                save(run, step, asked.asynchronous)
            count += asked.every
        names = sorted(path.name for path in run.iterdir() if not path.name.startswith("step-"))
        wrong += [] if names == [".lock"] else [f"a save left {names}"]
    kills = (count - 1) // asked.every
    each = (time.perf_counter() - began) / max(1, kills)
    print(f"{kills:,} kills in {count - asked.every:,} system calls of a save, {each * 1e3:.0f} ms each")
    print(f"{new:6,}  had the new checkpoint")
    print("\n".join([f"{len(wrong):6,}  wrong", *wrong]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
