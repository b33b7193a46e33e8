"""Kill a training process at random instants of its saves and of what surrounds them, and resume it each time.

    python -m tests.training.kill --times 500
    python -m tests.training.kill --times 500 --asynchronous

A life is a real process with real saves: durable, pruned, with optimizer, random state and a shared shard. It resumes its
own run, or another one if its own has no checkpoint yet, and compares every value with what that step must have. Then it
saves step after step, uploads each checkpoint in `after_save`, and prunes by size after every third; some lives first pin
the step that they resumed, and save it again. A life is killed at a random instant of what the seed draws: the resume, a
save, an upload or a prune. Every tenth kill begins a new run.

Exit code 1, and a line for each, if anything is wrong: a resume that fails, that is not from the last durable step or later,
or has other values; an upload that is damaged, or of a step that was not durable; leftovers or checkpoints that pile up; a
pinned step that is gone or damaged; a change in the run that is only read.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.training.lives import Life, Say, Training, arguments_of, instant, leftovers, torch

from statedict import CheckpointManager, at_most, last

# What a life says: the first of each pair when something begins, the second when it has ended.
RESUMING, RESUMED, SAVING, SAVED, UPLOADING, UPLOADED, PRUNING, PRUNED, PINNED, WRONG = range(10)
NAMES = {RESUMING: "resume", SAVING: "save", UPLOADING: "after_save", PRUNING: "prune"}
# The step from which runs begin, which is the newest of the run that is only read.
FIRST = 3
EVERY = 3


class Place(NamedTuple):
    """The directories of a run: its own, that of its uploads, and the run that it begins from; and what `at_most` keeps."""

    run: Path
    uploads: Path
    source: Path
    largest: int


def upload(saved, uploads: Path) -> None:
    """Copy a checkpoint's files, and give the copy its name when it is complete."""
    for name in (".partial", ".old"):
        shutil.rmtree(uploads / name, ignore_errors=True)
    shutil.copytree(saved.path, uploads / ".partial")
    if (uploads / saved.path.name).exists():
        os.rename(uploads / saved.path.name, uploads / ".old")
    os.rename(uploads / ".partial", uploads / saved.path.name)


def live(place: Place, rank: int, say: Say, *, asynchronous: bool, again: bool) -> None:
    """One life: resume, compare, and save, upload and prune until killed; `again`: first pin the resumed step."""

    def after_save(saved) -> None:
        say(UPLOADING, saved.step)
        upload(saved, place.uploads)
        say(UPLOADED, saved.step)

    training, expected = Training(), Training()
    say(RESUMING, 0)
    manager = CheckpointManager(place.run, keep=last(8), after_save=after_save, asynchronous=asynchronous)
    own = manager.resume(**training.objects)
    resumed = own or manager.resume(place.source, **training.objects)
    step, found = resumed.step, training.values()
    expected.go_to(step)
    same = all(torch.equal(a, b) for a, b in zip(found, expected.values(), strict=True))
    if not same or resumed.values != {"epoch": step} or resumed.passed_over:
        say(WRONG, step)
        return
    say(RESUMED, step)
    if again and own is not None:
        manager.pin(step)
        say(PINNED, step)
        step -= 1
    while True:
        step += 1
        training.go_to(step)
        say(SAVING, step)
        manager.save(step, epoch=step, **training.objects)
        # An asynchronous save has waited for the one before it.
        say(SAVED, step - 1 if asynchronous else step)
        if step % EVERY == 0:
            manager.wait()
            say(PRUNING, step)
            manager.prune(at_most(place.largest))
            say(PRUNED, step)


def kill(place: Place, kind: int, delay: float, *, asynchronous: bool, again: bool) -> Life:
    """Kill a life `delay` seconds after it has begun something."""
    with Life(partial(live, place, asynchronous=asynchronous, again=again)) as life:
        said = life.wait_for(kind)
        if said is not None:
            time.sleep(max(0.0, said.time + delay - time.perf_counter()))
            life.kill()
        life.end()
    return life


def durations(place: Place, *, asynchronous: bool) -> dict[int, float]:
    """How long each kind takes here, in seconds: the longest of some."""
    with Life(partial(live, place, asynchronous=asynchronous, again=False)) as life:
        while len(life.numbers(PRUNED)) < 3 and life.hear() is not None:
            pass
    longest, begun = dict.fromkeys(NAMES, 0.0), {}
    for one in life.said:
        if one.kind in NAMES:
            begun[one.kind] = one.time
        elif one.kind - 1 in begun:
            longest[one.kind - 1] = max(longest[one.kind - 1], one.time - begun[one.kind - 1])
    return longest


def contents(directory: Path) -> dict[str, str]:
    """The names and checksums of all files of a directory."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
        for path in found
    }


class Tally:
    """The results of all lives: what was interrupted, and what was wrong; and the state that those of this run reached."""

    def __init__(self) -> None:
        self.instants: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.begin()

    def begin(self) -> None:
        """Begin another run."""
        self.durable = self.begun = FIRST
        self.pinned: set[int] = set()
        # Saves since the last prune.
        self.unpruned = 0

    def add(self, place: Place, number: int, kind: int, life: Life) -> None:
        """Check a life against the state that the earlier lives reached, and what it left behind."""
        said = {each: life.numbers(each) for each in range(WRONG + 1)}
        wrong = ["a resumed value was not as it must be"] if said[WRONG] else []
        wrong += ["it hangs"] if life.hangs else []
        wrong += ["it ended by itself"] if life.statuses != [signal.SIGKILL] else []
        for step in said[RESUMED]:
            if not self.durable <= step <= max(self.begun, self.durable):
                wrong.append(f"resumed from {step}; {self.durable} was durable, {self.begun} had begun")
        if said[RESUMED]:
            # What had begun before is known now: it is durable, or is saved again.
            self.begun = max(said[RESUMED])
        self.durable = max([self.durable, *said[RESUMED], *said[SAVED], *said[UPLOADING]])
        self.begun = max([self.begun, *said[SAVING]])
        self.pinned.update(said[PINNED])
        early = [path.name for path in place.uploads.glob("step-*") if int(path.name[5:]) > self.durable]
        wrong += [f"uploaded, and not durable: {early}"] if early else []
        gone = [step for step in self.pinned if not (place.run / f"step-{step:010d}").is_dir()]
        wrong += [f"pinned steps are gone: {gone}"] if gone else []
        self.unpruned = 0 if said[PRUNED] else self.unpruned + len(said[SAVING])
        checkpoints = len(list(place.run.glob("step-*"))) - len(self.pinned)
        if len(leftovers(place.run)) > 1 or checkpoints > min(8, 3 + EVERY + self.unpruned) + 1:
            wrong.append(f"{checkpoints} checkpoints that are not pinned, {leftovers(place.run)}")
        self.wrong += [f"kill {number} ({NAMES[kind]}): {text}" for text in wrong]
        during = NAMES[kind] if said[kind] and not said[kind + 1] else f"after the {NAMES[kind]}"
        self.instants[f"{during}: {instant(place.run)}"] += 1

    def end(self, place: Place, number: int, source: dict[str, str]) -> None:
        """Check what is left of a run: its pins, its uploads, and the run that it began from."""
        wrong = ["the run that is only read has changed"] if contents(place.source) != source else []
        with CheckpointManager(place.run, keep=last(2)) as manager:
            manager.resume()
            manager.save(self.begun + 1)
            pinned = {step: manager.resume(at=step).values for step in self.pinned}
        wrong += [f"pinned step {step} has other values" for step, found in pinned.items() if found != {"epoch": step}]
        names = {path.name for path in place.run.iterdir() if not path.name.startswith("step-")}
        wrong += [] if names <= {".lock", ".pins"} else [f"a save left {names}"]
        for path in place.uploads.glob("step-*"):
            with CheckpointManager(place.uploads) as manager:
                values = manager.resume(at=int(path.name[5:])).values
            wrong += [] if values == {"epoch": int(path.name[5:])} else [f"the upload {path.name} is damaged"]
        self.wrong += [f"run until kill {number}: {text}" for text in wrong]


def new_run(folder: Path, number: int, source: Path, largest: int) -> Place:
    """The directories of another run, which are empty."""
    place = Place(folder / f"run-{number}", folder / f"uploads-{number}", source, largest)
    place.run.mkdir()
    place.uploads.mkdir()
    return place


def first_run(directory: Path) -> int:
    """Save the run that is only read; return the size that three of its checkpoints exceed.

    What a save and a resume import, no life has to import again.
    """
    training = Training()
    with CheckpointManager(directory) as manager:
        for step in range(FIRST + 1):
            training.go_to(step)
            manager.save(step, epoch=step, **training.objects)
        manager.resume(**training.objects)
        return int(2.5 * manager.latest.nbytes)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = arguments_of("kill", __doc__ or "")
    parser.add_argument("--asynchronous", action="store_true", help="a thread saves while training goes on")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chance, tally = random.Random(asked.seed), Tally()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        largest = first_run(folder / "source")
        source = contents(folder / "source")
        long = durations(new_run(folder, 0, folder / "source", largest), asynchronous=asked.asynchronous)
        place = new_run(folder, 1, folder / "source", largest)
        for number in range(1, asked.times + 1):
            kind, again = chance.choice(list(NAMES)), chance.random() < 0.2
            delay = chance.uniform(0, 1.1 * long[kind])
            tally.add(place, number, kind, kill(place, kind, delay, asynchronous=asked.asynchronous, again=again))
            if number % 10 == 0 or number == asked.times:
                tally.end(place, number, source)
                shutil.rmtree(place.run)
                shutil.rmtree(place.uploads)
                place = new_run(folder, number + 1, folder / "source", largest)
                tally.begin()
    took = ", ".join(f"{NAMES[kind]} {seconds * 1e3:.0f} ms" for kind, seconds in long.items())
    print(f"{asked.times:,} kills; the longest {took}")
    print("\n".join(f"{count:6,}  {what}" for what, count in tally.instants.most_common()))
    print("\n".join([f"{len(tally.wrong):6,}  wrong", *tally.wrong]))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
