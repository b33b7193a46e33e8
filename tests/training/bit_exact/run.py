"""Train in processes that are killed, and record every bit of each step.

    python -m tests.training.bit_exact.run PHASE DIRECTORY SEED ROW …

A phase is one of `straight` (train without a manager and without a stop), `killed` (SIGKILL in the step that the seed draws)
and `resumed` (resume what the killed process left, and train to the end). Each row is trained in a process of its own,
forked from one that has imported everything. Its records are in DIRECTORY/PHASE, a line of JSON for each step.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np
import torch
import torch._dynamo  # every optimizer imports it when it is made: seconds, for each process
from tests.forked import child

from statedict import CheckpointManager

STEPS, EVERY = 12, 3


class Straight:
    """A manager that neither saves nor resumes, for the uninterrupted training."""

    def resume(self, **objects):
        return None

    def save(self, *step, **objects):
        return None


class Run:
    """The arguments of a training: the manager, and `done`, which is called after each step."""

    def __init__(self, phase, directory, name, seed):
        self.manager = (
            Straight() if phase == "straight" else CheckpointManager(directory / "runs" / name, durable=False)
        )
        self.last = random.Random(f"{seed} {name}").randint(2 * EVERY, STEPS - 1) if phase == "killed" else None
        self.records = directory / phase / f"{name}.jsonl"
        self.directory = directory

    def done(self, step, loss, **objects):
        """Record the loss and the states after a step, and of the generators; end this process if it is the drawn step."""
        found = {name: digest(value.state_dict()) for name, value in objects.items()}
        found |= {
            "loss": digest(loss),
            "random": digest([random.getstate(), np.random.get_state(), torch.get_rng_state()]),
        }
        with self.records.open("a") as file:
            file.write(json.dumps({"step": step, **found}) + "\n")
        if step == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def of_rank(self, rank):
        """The same run on one of several ranks, with records of its own."""
        self.records = self.records.with_suffix(f".{rank}.jsonl")
        return self


def digest(value):
    """A checksum of types, dtypes, shapes and bits of a value, and of all values in it."""
    found = hashlib.blake2b(digest_size=12)
    for part in parts(value):
        found.update(part + b"\0")
    return found.hexdigest()


def parts(value):
    if isinstance(value, torch.Tensor):
        local = (value.to_local() if hasattr(value, "to_local") else value).detach().contiguous()
        yield f"{local.dtype} {tuple(value.shape)}".encode()
        yield local.flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode() + value.tobytes()
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            yield repr(key).encode()
            yield from parts(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"{type(value).__name__} {len(value)}".encode()
        for part in value:
            yield from parts(part)
    else:
        text = value.hex() if isinstance(value, float) else getattr(value, "__qualname__", None) or repr(value)
        yield f"{type(value).__name__} {text}".encode()


def seeded():
    """Seed every generator, as the first line of a training does."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def train(row, run):
    """Train a row in a process group of its own, so that what it starts can be ended with it."""
    os.setpgid(0, 0)
    seeded()
    row.train(run)


def ended(process, phase):
    """Wait for a process, and end what it has started; whether it ended as it must in this phase."""
    status = os.waitpid(process, 0)[1]
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if phase == "killed" else 0)


def warm(directory):
    """Save and resume once: what that imports, no other process has to import again."""
    model = torch.nn.Linear(1, 1)
    objects = {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}
    with CheckpointManager(directory) as manager:
        manager.save(1, **objects)
        manager.resume(**objects)


def main(phase, directory, seed, *names):
    from tests.training.bit_exact.rows import ROWS

    # torchdata 0.11 calls a function that torch 2.13 has deprecated.
    warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)
    (Path(directory) / phase).mkdir(parents=True)
    warm(Path(directory) / phase / "warm")
    wrong = []
    for name in names:
        if not ended(child(partial(train, ROWS[name], Run(phase, Path(directory), name, seed))), phase):
            wrong.append(name)
    print(json.dumps(wrong))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
