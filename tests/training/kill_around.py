"""Kill a training around its saves: while it resumes another run, prunes by size, or is in `after_save`.

    python -m tests.training.kill_around --times 500
    python -m tests.training.kill_around --times 500 --asynchronous

As in `kill.py`, a life is a forked process with real saves. It resumes its own run, or another one if its own has no
checkpoint yet; it uploads each checkpoint in `after_save`; prunes with `at_most` after every third save. It is killed at a
random instant of what the seed draws: the resume, the save, the upload or the prune. Every tenth kill begins a new run.

Exit code 1, and a line for each, if anything is wrong: the values of a resumed step; a resume from an older step than the
last durable one; an upload that is damaged, or of a step that was not durable; leftovers or checkpoints that pile up; a
change in the run that is only read.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.training.kill import Training, heard, leftovers, torch

from statedict import CheckpointManager, at_most, last

# What a life says: the first of each pair when something begins, the second when it has ended.
RESUMING, RESUMED, SAVING, SAVED, UPLOADING, UPLOADED, PRUNING, PRUNED, WRONG = range(9)
NAMES = {RESUMING: "resume", SAVING: "save", UPLOADING: "after_save", PRUNING: "prune"}
# The step from which runs begin, which is the newest of the run that is only read.
FIRST = 3
EVERY = 3


class Place(NamedTuple):
    """The directories of a run: its own, that of its uploads, and the run that it begins from."""

    run: Path
    uploads: Path
    source: Path
    largest: int


def upload(saved, uploads: Path) -> None:
    """Copy a checkpoint's files, and give the copy its name when it is complete."""
    shutil.rmtree(uploads / ".partial", ignore_errors=True)
    shutil.copytree(saved.path, uploads / ".partial")
    shutil.rmtree(uploads / saved.path.name, ignore_errors=True)
    os.rename(uploads / ".partial", uploads / saved.path.name)


def live(place: Place, tell: int, *, asynchronous: bool) -> None:
    """One life: resume, compare, and save, upload and prune until killed."""

    def say(kind: int, step: int) -> None:
        os.write(tell, kind.to_bytes(1, "little") + step.to_bytes(8, "little", signed=True))

    def after_save(saved) -> None:
        say(UPLOADING, saved.step)
        upload(saved, place.uploads)
        say(UPLOADED, saved.step)

    training, expected = Training(), Training()
    say(RESUMING, 0)
    manager = CheckpointManager(place.run, keep=last(8), after_save=after_save, asynchronous=asynchronous)
    resumed = manager.resume(**training.objects) or manager.resume(place.source, **training.objects)
    step, found = resumed.step, training.values()
    expected.go_to(step)
    same = all(torch.equal(a, b) for a, b in zip(found, expected.values(), strict=True))
    if not same or resumed.values != {"epoch": step} or resumed.passed_over:
        say(WRONG, step)
        return
    say(RESUMED, step)
    while True:
        step += 1
        training.go_to(step)
        say(SAVING, step)
        manager.save(step, epoch=step, **training.objects)
        say(SAVED, step - 1 if asynchronous else step)
        if step % EVERY == 0:
            manager.wait()
            say(PRUNING, step)
            manager.prune(at_most(place.largest))
            say(PRUNED, step)


def forked(place: Place, *, asynchronous: bool) -> tuple[int, int]:
    """A life in a child process: the process, and the pipe on which it reports."""
    hear, tell = os.pipe()
    process = os.fork()
    if not process:
        try:
            live(place, tell, asynchronous=asynchronous)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(tell)
    return process, hear


def kill(place: Place, kind: int, delay: float, *, asynchronous: bool) -> list[tuple[int, int]]:
    """Kill a life `delay` seconds after it has begun something; return what it has said: kinds and steps."""
    process, pipe = forked(place, asynchronous=asynchronous)
    said = []
    try:
        while (one := heard(pipe)) is not None:
            said.append((one.kind, one.step))
            if one.kind == kind:
                time.sleep(max(0.0, one.time + delay - time.perf_counter()))
                break
    finally:
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
    while (one := heard(pipe)) is not None:
        said.append((one.kind, one.step))
    os.close(pipe)
    return said if os.WIFSIGNALED(status) else [*said, (WRONG, -1)]


def durations(place: Place, *, asynchronous: bool) -> dict[int, float]:
    """How long each kind takes here, in seconds: the longest of some."""
    process, pipe = forked(place, asynchronous=asynchronous)
    longest, begun = dict.fromkeys(NAMES, 0.0), {}
    pruned = 0
    while pruned < 3 and (one := heard(pipe)) is not None:
        if one.kind in NAMES:
            begun[one.kind] = one.time
        elif one.kind - 1 in begun:
            longest[one.kind - 1] = max(longest[one.kind - 1], one.time - begun[one.kind - 1])
        pruned += one.kind == PRUNED
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(pipe)
    return longest


def contents(directory: Path) -> dict[str, str]:
    """The names and checksums of all files of a directory."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
        for path in found
    }


class Tally:
    """The results of the lives of a run: the state they reached, what was interrupted, and what was wrong."""

    def __init__(self) -> None:
        self.instants: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.begin()

    def begin(self) -> None:
        """Begin another run."""
        self.durable = self.begun = FIRST
        self.unpruned = 0

    def add(self, place: Place, number: int, kind: int, said: list[tuple[int, int]]) -> None:
        """Check a life against the state that the earlier lives reached, and what it left behind."""
        by_kind = {each: [step for k, step in said if k == each] for each in range(9)}
        wrong = ["a resumed value, or the end of the life, was not as it must be"] if by_kind[WRONG] else []
        for step in by_kind[RESUMED]:
            if not self.durable <= step <= max(self.begun, self.durable):
                wrong.append(f"resumed from {step}; {self.durable} was durable, {self.begun} had begun")
        self.durable = max([self.durable, *by_kind[RESUMED], *by_kind[SAVED], *by_kind[UPLOADING]])
        self.begun = max([self.begun, *by_kind[SAVING]])
        early = [path.name for path in place.uploads.glob("step-*") if int(path.name[5:]) > self.durable]
        wrong += [f"uploaded, and not durable: {early}"] if early else []
        self.unpruned = 0 if by_kind[PRUNED] else self.unpruned + len(by_kind[SAVING])
        checkpoints = len(list(place.run.glob("step-*")))
        if len(leftovers(place.run)) > 1 or checkpoints > min(8, 3 + EVERY + self.unpruned) + 1:
            wrong.append(f"{checkpoints} checkpoints, {[path.name for path in leftovers(place.run)]}")
        self.wrong += [f"kill {number} ({NAMES[kind]}): {text}" for text in wrong]
        self.instants[NAMES[kind] if by_kind[kind] and not by_kind[kind + 1] else f"after the {NAMES[kind]}"] += 1

    def end(self, place: Place, number: int, source: dict[str, str]) -> None:
        """Check what is left of a run: its uploads, and the run that it began from."""
        wrong = ["the run that is only read has changed"] if contents(place.source) != source else []
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.training.kill_around")
    parser.add_argument("--times", type=int, default=40, help="how many kills")
    parser.add_argument("--asynchronous", action="store_true", help="a thread saves while training goes on")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--folder", help="where to save; a temporary folder of the system otherwise")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chance, tally = random.Random(asked.seed), Tally()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder, training = Path(name), Training()
        with CheckpointManager(folder / "source") as manager:
            for step in range(FIRST + 1):
                training.go_to(step)
                manager.save(step, epoch=step, **training.objects)
            manager.resume(**training.objects)
            largest = int(2.5 * manager.latest.nbytes)
        source = contents(folder / "source")
        long = durations(new_run(folder, 0, folder / "source", largest), asynchronous=asked.asynchronous)
        place = new_run(folder, 1, folder / "source", largest)
        for number in range(1, asked.times + 1):
            kind = chance.choice(list(NAMES))
            delay = chance.uniform(0, 1.1 * long[kind])
            tally.add(place, number, kind, kill(place, kind, delay, asynchronous=asked.asynchronous))
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
