"""`statedict tour`: the main job on real data, each step done by the public verbs and checked before it is told.

A step is a function that does something, checks what it claims, and gives back two sentences: what it did, and what that
proves. Training runs in processes of its own (`_digits.py`), because one of them is to be killed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

import statedict
from statedict.report import count, size

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from rich.console import Console

FATAL_EPOCH = 5
EPOCHS = 8
HEAD_EPOCHS = 4
BLOCKED = "import sys; sys.modules['torch'] = None; from statedict.cli import main; main(sys.argv[1:])"


class Told(NamedTuple):
    """What a step did, and what that proves."""

    did: str
    proves: str


class Place(NamedTuple):
    """Where the tour's files lie, and where it prints."""

    directory: Path
    console: Console

    @property
    def digits(self) -> Path:
        return self.directory / "digits.pt"


def tour(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Where its files go; they stay there to be looked at.")
    ] = Path("tour-files"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Say what was done and proved as JSON, for programs.")
    ] = False,
) -> None:
    """Train, die in the middle of a save, resume, transfer, and look inside without PyTorch; under a minute.

    Needs torch and scikit-learn, whose handwritten digits it trains on; downloads nothing.

    Example: statedict tour
    """
    from rich.console import Console

    from ._show import console

    for package, module in (("torch", "torch"), ("scikit-learn", "sklearn")):
        if not find_spec(module):
            raise MissingDependencyError(package, needed_for="the tour")
    start = time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    place = Place(directory, Console(quiet=True) if as_json else console())
    for name in ("digits.pt", "uninterrupted.pt", "parity.pt"):
        (directory / name).unlink(missing_ok=True)
    steps = []
    for number, step in enumerate(STEPS, start=1):
        told = step(place)
        steps.append(told._asdict())
        place.console.print(f"[bold cyan]{number}.[/] {told.did} [green]{told.proves}[/]\n", markup=True)
    place.console.print(f"{time.perf_counter() - start:.0f} s. The files are in {directory}/: look at one with")
    place.console.print(f"  statedict inspect {place.digits}", style="bold")
    if as_json:
        typer.echo(json.dumps({"schema": 1, "directory": str(directory), "steps": steps}))


def train_until_killed(place: Place) -> Told:
    """Train in a process that kills itself while it saves; the file must then be the epoch before, whole."""
    code = _train(place, "training, until killed", FATAL_EPOCH)
    _check(code == -signal.SIGKILL, f"the training process should have been killed, but ended with {code}")
    litter = [p.name for p in place.directory.iterdir() if p.name.startswith(".")]
    with statedict.open(place.digits) as checkpoint:
        findings = checkpoint.verify()
        saved = checkpoint.object["epoch"]
    _check(not findings and saved == FATAL_EPOCH - 1, f"digits.pt is damaged: epoch {saved}, {findings}")
    did = f"Trained a CNN on handwritten digits, and killed it (SIGKILL) in the middle of saving epoch {FATAL_EPOCH}"
    left = f", which left {count(len(litter), 'half-written file')} beside it" if litter else ""
    return Told(
        f"{did}{left}.", f"{place.digits.name} is epoch {saved}, every checksum right: a save is all or nothing."
    )


def resume(place: Place) -> Told:
    """Go on in a new process; the end must be, bit for bit, that of a run which was never interrupted."""
    from ._digits import accuracy, images, new_run, train

    code = _train(place, "resuming", 0)
    _check(code == 0, f"the resumed run ended with exit code {code}")
    with _Progress(place, "the same without interruption") as shown:
        straight = train(place.directory / "uninterrupted.pt", EPOCHS, done=shown)
    resumed, _ = new_run()
    statedict.load_state_dict(resumed, place.digits, root="model")
    prints = [statedict.state_dict(model).fingerprint() for model in (resumed, straight)]
    _check(prints[0] == prints[1], "the resumed model differs from the one that was never interrupted")
    litter = [p.name for p in place.directory.iterdir() if p.name.startswith(".")]
    _check(not litter, f"half-written files were left: {litter}")
    right = accuracy(resumed, images()[1])
    did = (
        f"Resumed from epoch {FATAL_EPOCH - 1}, trained to epoch {EPOCHS}: {right:.1%} of 297 unseen digits are right."
    )
    same = f"Model and optimizer came back whole: equal, bit for bit, to a run never interrupted ({prints[0][:12]}…)."
    return Told(did, same)


def read_by_torch(place: Place) -> Told:
    """PyTorch's own reader, in its strictest mode, must give the same tensors."""
    from ._digits import differing

    with statedict.open(place.digits) as checkpoint:
        state = checkpoint.state_dict("model")
        wrong = differing(place.digits, state)
    _check(not wrong, f"PyTorch reads other values: {wrong}")
    return Told(
        f"Read the file with torch.load(weights_only=True): {count(len(state), 'tensor')}, all equal.",
        "It is an ordinary .pt file; nobody needs this library to open it.",
    )


def transfer(place: Place) -> Told:
    """Load all but the head into a model with other classes, and train only its new head."""
    from ._digits import accuracy, images, parity, parity_model, train_head

    model = parity_model()
    before = statedict.snapshot(model)
    try:
        statedict.load_state_dict(model, place.digits, root="model")
    except statedict.LoadError as error:
        refused = str(error).splitlines()[-1].strip()
    else:
        refused = ""
    _check(bool(refused), "a head of another size was accepted")
    _check(statedict.state_dict(model).fingerprint() == before.fingerprint(), "a refused load changed the model")
    report = statedict.load_state_dict(model, place.digits, root="model", exclude="head")
    training, test = map(parity, images())
    with _Progress(place, "training the new head", HEAD_EPOCHS) as shown:
        train_head(model, training, HEAD_EPOCHS, done=shown)
    statedict.save(statedict.state_dict(model), place.directory / "parity.pt")
    did = f"Took {count(len(report.loaded), 'tensor')} of it, all but the head, into a model that tells odd from even: "
    did += f"{accuracy(model, test):.1%} right after {HEAD_EPOCHS} epochs of the new head."
    return Told(did, "Loading the head too was refused before anything changed; leaving it out had to be said.")


def inspect_without_torch(place: Place) -> Told:
    """Show the file in a process in which importing torch fails."""
    start = time.perf_counter()
    shown = subprocess.run(
        [sys.executable, "-c", BLOCKED, "inspect", str(place.digits), "--root", "model"], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    _check(shown.returncode == 0, f"statedict inspect failed: {shown.stderr}")
    place.console.print(shown.stdout, soft_wrap=True)
    nbytes = size(place.digits.stat().st_size)
    return Told(
        f"Opened the {nbytes} with torch blocked, in {seconds:.2f} s.", "Looking needs no PyTorch, and runs no code."
    )


STEPS: tuple[Callable[[Place], Told], ...] = (
    train_until_killed,
    resume,
    read_by_torch,
    transfer,
    inspect_without_torch,
)


class _Progress:
    """A bar over epochs, there while the `with` block runs; called with the number of epochs that are done."""

    def __init__(self, place: Place, about: str, total: int = EPOCHS) -> None:
        from rich.progress import Progress

        self._bar = Progress(console=place.console, transient=True, disable=not place.console.is_terminal)
        self._task = self._bar.add_task(about, total=total)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def __call__(self, epochs: int) -> None:
        self._bar.update(self._task, completed=epochs)


def _train(place: Place, about: str, fatal_epoch: int) -> int:
    """Run the training program to its end, or to its death; gives its exit code (minus the signal that killed it)."""
    command = [sys.executable, "-m", "statedict.cli._digits", str(place.digits), str(EPOCHS), str(fatal_epoch)]
    with _Progress(place, about) as shown, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            shown(int(line))
    return process.returncode


def _check(holds: bool, otherwise: str) -> None:
    """A claim of the tour; one that does not hold is a fault of this library, and ends it with a traceback."""
    if not holds:
        raise RuntimeError(otherwise)
