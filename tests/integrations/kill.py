"""Kill trainings of each framework in the middle of their saves, resume them, and compare with uninterrupted ones.

    python -m tests.integrations.kill lightning --times 50

The framework is imported once; every life of a training is a fork. A life says when a save begins, and is killed with
SIGKILL a random time after that of a random save. The next one resumes; the last one is left to finish. Then everything
that it ends with must equal, bit for bit, what a training ends with that nothing interrupted. Exit code 1 if it does not.
"""

import argparse
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from functools import partial

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

from tests.forked import child
from tests.integrations.trainings import TRAININGS

from statedict import CheckpointManager

# A life in which nothing happens for so long hangs.
PATIENCE = 120.0


def saves_of(training):
    """The class and the name of the method with which a training saves; imports what the class needs."""
    if training is TRAININGS["plugin"]:
        from statedict.integrations.lightning import StateDictCheckpointIO

        return StateDictCheckpointIO, "save_checkpoint"
    return CheckpointManager, "save"


def start(training, directory):
    """Begin a life; return its process and the pipe on which it says `s` for a save, `d` when that is durable, and
    its end."""
    hear, say = os.pipe()
    process = child(partial(live, training, directory, say))
    os.close(say)
    return process, hear


def live(training, directory, say):
    owner, name = saves_of(training)
    save = getattr(owner, name)

    def told(*args, **kwargs):
        os.write(say, b"s")
        save(*args, **kwargs)
        os.write(say, b"d")

    setattr(owner, name, told)
    end = json.dumps(training(directory))
    os.write(say, b"e")
    with open(say, "w") as stream:
        stream.write(end)


def said(pipe):
    if not select.select([pipe], [], [], PATIENCE)[0]:
        raise TimeoutError(f"nothing was heard for {PATIENCE} s")
    return os.read(pipe, 1)


def run(training, directory, kill_at=None, delay=0.0):
    """One life. Return what it ended with; None if it was killed, `delay` seconds into its save number `kill_at`."""
    process, pipe = start(training, directory)
    saves = 0
    try:
        while (word := said(pipe)) in (b"s", b"d"):
            saves += word == b"s"
            if word == b"s" and saves == kill_at:
                time.sleep(delay)
                os.kill(process, signal.SIGKILL)
                return None
        if word != b"e":
            raise RuntimeError("the training failed")
        with open(pipe, closefd=False) as stream:
            return json.load(stream)
    finally:
        if kill_at is None or saves < kill_at:
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(pipe)


def duration(training):
    """How long a save takes here, in seconds."""
    with tempfile.TemporaryDirectory() as directory:
        process, pipe = start(training, directory)
        times = []
        while len(times) < 6 and said(pipe) in (b"s", b"d"):
            times.append(time.perf_counter())
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(pipe)
    return times[5] - times[4]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", choices=TRAININGS)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    training, draw = TRAININGS[options.training], random.Random(options.seed)
    saves_of(training)
    with tempfile.TemporaryDirectory() as directory:
        expected = run(training, directory)
    long, killed = duration(training), 0
    while killed < options.times:
        with tempfile.TemporaryDirectory() as directory:
            found = None
            while found is None:
                kill_at = draw.randint(1, 3) if killed < options.times else None
                found = run(training, directory, kill_at, draw.uniform(0, 1.2 * long))
                killed += found is None
        if found != expected:
            print(f"{options.training}, seed {options.seed}: the resumed training ends with other values")
            return 1
    print(f"{options.training}: killed {killed} times, and the same as uninterrupted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
