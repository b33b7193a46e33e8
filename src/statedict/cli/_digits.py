"""The training program of the tour: a small CNN on handwritten digits, which saves its whole state after every epoch.

It is written as a user of this library would write it, with the public functions only. As a separate process, it can kill
itself in the middle of a save. All random numbers depend only on the epoch, so that a resumed run can be compared, bit by
bit, with one that was never interrupted.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import statedict
from statedict.files import system

# For such small batches, a second thread makes it slower, especially on a busy machine.
torch.set_num_threads(1)

BATCH = 32
TEST = 297
WRITES_BEFORE_DEATH = 10


class Images(NamedTuple):
    """8×8 grey images as float32 (n, 1, 8, 8) in 0…1, and their classes as int64 (n,)."""

    pixels: torch.Tensor
    classes: torch.Tensor


class DigitsNet(nn.Module):
    """A backbone of two convolutions, and a head of one linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(pixels))  # type: ignore[no-any-return]


def images() -> tuple[Images, Images]:
    """Return the 1,797 digits in scikit-learn: 1,500 for training, 297 for testing."""
    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    classes = torch.tensor(digits.target, dtype=torch.int64)
    return Images(pixels[:-TEST], classes[:-TEST]), Images(pixels[-TEST:], classes[-TEST:])


def new_run() -> tuple[DigitsNet, torch.optim.Optimizer]:
    """Return a newly initialised model and its optimizer; the same at every call."""
    torch.manual_seed(0)
    model = DigitsNet(classes=10)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def one_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, data: Images, epoch: int) -> None:
    """Train on every image once, in an order that depends on the epoch."""
    model.train()
    order = torch.randperm(len(data.classes), generator=torch.Generator().manual_seed(epoch))
    for chosen in torch.split(order, BATCH):
        optimizer.zero_grad()
        loss = cross_entropy(model(data.pixels[chosen]), data.classes[chosen])
        torch.autograd.backward(loss)
        optimizer.step()


def parity_model() -> DigitsNet:
    """Return a newly initialised model with a head for two classes, odd and even."""
    torch.manual_seed(1)
    return DigitsNet(classes=2)


def parity(data: Images) -> Images:
    """Return the same images with the classes even (0) and odd (1)."""
    return Images(data.pixels, data.classes % 2)


def train_head(model: DigitsNet, data: Images, epochs: int, *, done: Callable[[int], None]) -> None:
    """Train only the head; the backbone is frozen."""
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=2e-3)
    for epoch in range(1, epochs + 1):
        one_epoch(model, optimizer, data, epoch)
        done(epoch)


def differing(file: Path, state: statedict.StateDict) -> list[str]:
    """Return the names whose tensors differ from those that `torch.load(weights_only=True)` reads from the file."""
    theirs = torch.load(file, weights_only=True)["model"]
    ours = state.torch()
    return [n for n in {*ours, *theirs} if n not in ours or n not in theirs or not torch.equal(ours[n], theirs[n])]


def accuracy(model: nn.Module, data: Images) -> float:
    """Return the share of images that the model classifies correctly."""
    model.eval()
    with torch.no_grad():
        return float((model(data.pixels).argmax(1) == data.classes).float().mean())


def resume(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the saved state, if there is one; return the number of epochs it was trained for."""
    if not file.exists():
        return 0
    with statedict.open(file) as checkpoint:
        statedict.load_state_dict(model, checkpoint, root="model")
        statedict.load_state_dict(optimizer, checkpoint, root="optimizer")
        return int(checkpoint.object["epoch"])


def save(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Save the whole state of the run to one file, which replaces the previous one."""
    state = {"model": statedict.state_dict(model), "optimizer": statedict.state_dict(optimizer), "epoch": epoch}
    statedict.save(state, file)


def train(file: Path, epochs: int, *, done: Callable[[int], None], fatal_epoch: int = 0) -> DigitsNet:
    """Train until `epochs`, starting from the state in `file` if it exists, and save after every epoch.

    `done` is called with the number of saved epochs; during the save of `fatal_epoch`, the process kills itself.
    """
    model, optimizer = new_run()
    data, _ = images()
    start = resume(file, model, optimizer)
    done(start)
    for epoch in range(start + 1, epochs + 1):
        one_epoch(model, optimizer, data, epoch)
        if epoch == fatal_epoch:
            die_while_writing()
        save(file, model, optimizer, epoch)
        done(epoch)
    return model


def die_while_writing() -> None:
    """Kill this process after its threads have written to a file a few times, or when they are about to rename one.

    SIGKILL cannot be caught: nothing is flushed, closed or cleaned up, as in a power failure or an out-of-memory kill.
    """
    writes = count(1)

    def on_return(frame: FrameType, event: str, called: Any) -> None:
        written = event == "c_return" and getattr(called, "__name__", "") in ("write", "writev", "pwrite", "pwritev")
        if written and next(writes) == WRITES_BEFORE_DEATH:
            system.die()

    def on_audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.link"):
            system.die()

    sys.addaudithook(on_audit)
    threading.setprofile(on_return)
    sys.setprofile(on_return)


def tell(epoch: int) -> None:
    """Print the epoch for the parent process."""
    sys.stdout.write(f"{epoch}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), fatal_epoch=int(sys.argv[3]), done=tell)
