"""`statedict tour`: demonstrate the main features on real data; each step uses the public functions and checks its result.

A step is a function that does something, checks its claims, and returns two sentences: what it did, and what that proves.
Training runs in separate processes (`_digits.py`), because one of them is killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import click

import statedict
from statedict.files import system
from statedict.report import count, size

from ..errors import MissingDependencyError
from ._command import Argument
from ._options import JsonSummary

if TYPE_CHECKING:
    from rich.console import Console

FATAL_EPOCH = 5
EPOCHS = 8
HEAD_EPOCHS = 4
BLOCKED = "import sys; sys.modules['torch'] = None; from statedict.cli import main; main(sys.argv[1:])"


class StepResult(NamedTuple):
    """One sentence on what a step did, and one on what that proves."""

    did: str
    proves: str


class Workspace(NamedTuple):
    """The directory of the tour's files, and the console."""

    directory: Path
    console: Console

    @property
    def digits(self) -> Path:
        return self.directory / "digits.pt"

    def litter(self) -> list[str]:
        """Return the half-written files."""
        return [path.name for path in self.directory.iterdir() if path.name.startswith(".")]


def tour(
    directory: Annotated[
        Path, Argument(metavar="DIRECTORY", help="The directory for its files, which are kept.")
    ] = Path("tour-files"),
    as_json: JsonSummary = False,
) -> None:
    """Train, get killed in the middle of a save, resume, transfer, and inspect without PyTorch; takes under a minute.

    Needs torch and scikit-learn (for its handwritten digits); downloads nothing.

    Examples:
        statedict tour
    """
    from rich.console import Console

    from ._terminal import rich_console

    for package, module in (("torch", "torch"), ("scikit-learn", "sklearn")):
        if not find_spec(module):
            raise MissingDependencyError(package, needed_for="the tour")
    start = time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    place = Workspace(directory, Console(quiet=True) if as_json else rich_console())
    for name in ("digits.pt", "uninterrupted.pt", "parity.pt"):
        (directory / name).unlink(missing_ok=True)
    steps = []
    for number, step in enumerate(STEPS, start=1):
        result = step(place)
        steps.append(result._asdict())
        place.console.print(f"[bold cyan]{number}.[/] {result.did} [green]{result.proves}[/]\n", markup=True)
    place.console.print(f"{time.perf_counter() - start:.0f} s. The files are in {directory}/. Inspect one with")
    place.console.print(f"  statedict inspect {place.digits}", style="bold")
    if as_json:
        click.echo(json.dumps({"schema": 1, "directory": str(directory), "steps": steps}))


def train_until_killed(place: Workspace) -> StepResult:
    """Train in a process that kills itself during a save; the file must then hold the complete previous epoch."""
    code = _train(place, "training, until killed", FATAL_EPOCH)
    _check(code == system.DIED, f"the training process should have been killed, but ended with {code}")
    litter = place.litter()
    with statedict.open(place.digits) as checkpoint:
        findings = checkpoint.verify()
        saved = checkpoint.object["epoch"]
    _check(not findings and saved == FATAL_EPOCH - 1, f"digits.pt is damaged: epoch {saved}, {findings}")
    did = f"Trained a CNN on handwritten digits, and killed it (SIGKILL) in the middle of saving epoch {FATAL_EPOCH}"
    left = f", which left {count(len(litter), 'half-written file')} beside it" if litter else ""
    return StepResult(
        f"{did}{left}.",
        f"{place.digits.name} holds epoch {saved}, and every checksum is right: a save is all or nothing.",
    )


def resume(place: Workspace) -> StepResult:
    """Continue in a new process; the result must equal, bit for bit, that of a run that was never interrupted."""
    from ._digits import accuracy, images, new_run, train

    code = _train(place, "resuming", 0)
    _check(code == 0, f"the resumed run ended with exit code {code}")
    with _progress(place, "the same without interruption") as shown:
        straight = train(place.directory / "uninterrupted.pt", EPOCHS, done=shown)
    resumed, _ = new_run()
    statedict.load_state_dict(resumed, place.digits, root="model")
    prints = [statedict.state_dict(model).fingerprint() for model in (resumed, straight)]
    _check(prints[0] == prints[1], "the resumed model differs from the one that was never interrupted")
    litter = place.litter()
    _check(not litter, f"half-written files were left: {litter}")
    right = accuracy(resumed, images()[1])
    did = (
        f"Resumed from epoch {FATAL_EPOCH - 1}, trained to epoch {EPOCHS}: {right:.1%} of 297 unseen digits are right."
    )
    same = f"The result equals that of an uninterrupted run, bit for bit ({prints[0][:12]}…)."
    return StepResult(did, same)


def read_by_torch(place: Workspace) -> StepResult:
    """`torch.load(weights_only=True)` must return the same tensors."""
    from ._digits import differing

    with statedict.open(place.digits) as checkpoint:
        state = checkpoint.state_dict("model")
        wrong = differing(place.digits, state)
    _check(not wrong, f"PyTorch reads different values: {wrong}")
    return StepResult(
        f"Read the file with torch.load(weights_only=True): {count(len(state), 'tensor')}, all equal.",
        "It is an ordinary .pt file; opening it does not need this library.",
    )


def transfer(place: Workspace) -> StepResult:
    """Load everything except the head into a model with other classes, and train only its new head."""
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
    with _progress(place, "training the new head", HEAD_EPOCHS) as shown:
        train_head(model, training, HEAD_EPOCHS, done=shown)
    statedict.save(statedict.state_dict(model), place.directory / "parity.pt")
    did = f"Loaded {count(len(report.loaded), 'tensor')}, all but the head, into a model that classifies odd and even: "
    did += f"{accuracy(model, test):.1%} accuracy after training the new head for {HEAD_EPOCHS} epochs."
    return StepResult(
        did, "Loading the head as well was refused before anything changed; it had to be excluded explicitly."
    )


def inspect_without_torch(place: Workspace) -> StepResult:
    """Inspect the file in a process in which importing torch fails."""
    start = time.perf_counter()
    shown = subprocess.run(
        [sys.executable, "-c", BLOCKED, "inspect", str(place.digits), "--root", "model"], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    _check(shown.returncode == 0, f"statedict inspect failed: {shown.stderr}")
    place.console.print(shown.stdout, soft_wrap=True)
    nbytes = size(place.digits.stat().st_size)
    return StepResult(
        f"Inspected the {nbytes} file in {seconds:.2f} s, with torch blocked.",
        "Inspecting does not need PyTorch, and runs no code from the file.",
    )


STEPS: tuple[Callable[[Workspace], StepResult], ...] = (
    train_until_killed,
    resume,
    read_by_torch,
    transfer,
    inspect_without_torch,
)


@contextmanager
def _progress(place: Workspace, about: str, total: int = EPOCHS) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over epochs; give the function to call with the number of finished ones."""
    from rich.progress import Progress

    with Progress(console=place.console, transient=True, disable=not place.console.is_terminal) as bar:
        task = bar.add_task(about, total=total)
        yield lambda epochs: bar.update(task, completed=epochs)


def _train(place: Workspace, about: str, fatal_epoch: int) -> int:
    """Run the training program until it ends or is killed; return its exit code (minus the signal that killed it)."""
    command = [sys.executable, "-m", "statedict.cli._digits", str(place.digits), str(EPOCHS), str(fatal_epoch)]
    with _progress(place, about) as shown, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            shown(int(line))
    return process.returncode


def _check(holds: bool, otherwise: str) -> None:
    """Raise RuntimeError if a claim of the tour does not hold, which is a bug in this library."""
    if not holds:
        raise RuntimeError(otherwise)
