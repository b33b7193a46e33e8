"""Small objects with a state, and system calls that fail, for the tests of the manager."""

import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from statedict.files import open_bucket
from statedict.formats.runs import MANIFEST, FileFacts

# Since Python 3.12 a profile function that raises is removed.
needs_raising_profiles = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="a profile function that raises is removed since Python 3.12"
)


class Value:
    """An object whose state is one array."""

    def __init__(self, value=-1.0):
        self.array = np.full(3, value)

    def state_dict(self):
        return {"array": self.array}

    def load_state_dict(self, state):
        self.array = np.asarray(state["array"])


class Counter:
    """An object whose state is one number."""

    def __init__(self, count=0):
        self.count = count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def computed_facts(place):
    """Return the facts of all files of a checkpoint, but its manifest, computed from their bytes."""
    if isinstance(place, Path):
        files = {file.relative_to(place).as_posix(): file.read_bytes() for file in place.rglob("*") if file.is_file()}
    else:
        bucket = open_bucket(place)
        files = {entry.key: bucket.get(entry.key)[0] for entry in bucket.list()}
    return {name: FileFacts(len(raw), zlib.crc32(raw)) for name, raw in files.items() if name != MANIFEST}


def failing(is_chosen, first, last, number):
    """Return a profile function that makes the chosen C functions fail from the `first` call to the `last`, with an errno
    (None: MemoryError), and the number of calls so far, in a list.
    """
    seen = [0]

    def watch(frame, event, function):
        if event != "c_call" or not is_chosen(function):
            return
        seen[0] += 1
        if first <= seen[0] <= last:
            sys.setprofile(watch if seen[0] < last else None)
            raise MemoryError if number is None else OSError(number, os.strerror(number))

    return watch, seen
