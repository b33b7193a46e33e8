"""What a small save costs is counted, because its time depends on the machine."""

import os
import sys

import torch

import statedict
from statedict import CheckpointManager

PACKAGE = os.path.dirname(statedict.__file__)


def moves(act):
    """How often the execution moves from one file of the package to another."""
    count, last = 0, ""

    def watch(frame, event, argument):
        nonlocal count, last
        if event == "return":
            frame = frame.f_back
        file = frame.f_code.co_filename if frame is not None and event in ("call", "return") else ""
        if file.startswith(PACKAGE) and file != last:
            count, last = count + 1, file

    sys.setprofile(watch)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def test_a_small_save_makes_few_moves_between_files(tmp_path):
    """A save of two layers with Adam and the random state visits each value once (2,110 moves when this was written)."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, model=model, optimizer=optimizer)
        assert moves(lambda: manager.save(2, model=model, optimizer=optimizer)) <= 2300
