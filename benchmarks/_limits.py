"""The speed of the machine itself for the same number of bytes, which no library can exceed."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ._bench import Bench

PIECE = 4 << 20


def copied(bench: Bench) -> None:
    """Copy every tensor in memory, in one call."""
    with torch.no_grad():
        torch._foreach_copy_(list(bench.target.state_dict().values()), list(bench.state.values()))


def read(bench: Bench) -> None:
    """Read the file into allocated memory, piece by piece."""
    into = memoryview(bytearray(PIECE))
    with Path(bench.torch_file).open("rb", buffering=0) as file:
        while file.readinto(into):
            pass


def written(bench: Bench, *, durable: bool = False) -> None:
    """Write as many bytes as the state has to a new file, from one piece of memory."""
    piece = memoryview(bytes(PIECE))
    fd = os.open(bench.scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        left = bench.nbytes
        while left:
            left -= os.write(fd, piece[: min(left, PIECE)])
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
