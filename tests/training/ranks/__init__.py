"""Runs of several ranks, and what each of them answers: `python -m tests.training.ranks`."""

import json

from tests import forked


def started(directory, *phases):
    """Start the phases, one after the other; warnings are errors there, too."""
    return forked.start(__name__, directory, *phases)


def answers(directory, *phases):
    """What each rank of each phase answers."""
    return answers_of(started(directory, *phases))


def answers_of(job):
    """What each rank of each phase that was started answers."""
    done = job.wait()
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
