"""Files of torch, safetensors and NumPy, and ours: what both libraries read is equal.

`python -m tests.fuzz --against` does the same for as long as asked.
"""

from __future__ import annotations

import io
from random import Random

import pytest
from tests.fuzz.targets import TARGETS
from tests.hostile.reading import read_all

from statedict.errors import FormatError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tests.fuzz.against import LIBRARIES, assert_equal, damaged_alike, written_alike  # noqa: E402


def theirs(raw: bytes):
    try:
        found = torch.load(io.BytesIO(raw), weights_only=True)
    except Exception:  # torch's errors for damaged files are of a dozen types
        return None
    return found if isinstance(found, dict) else None


def ours(raw: bytes):
    try:
        return read_all(io.BytesIO(raw))
    except FormatError:
        return None


@pytest.mark.parametrize("name", ["torch", "zip", "legacy"])
@pytest.mark.filterwarnings("ignore")
def test_what_both_read_is_equal(name: str):
    """Readers may differ in what they refuse, and in nothing else."""
    random = Random(f"against torch {name}")
    compared = 0
    for _ in range(1500):
        raw = TARGETS[name].mutant(random)
        a = ours(raw)
        b = theirs(raw) if a else None
        if a and b is not None:
            compared += 1
            assert [str(key) for key in b] == list(a)
            assert_equal(a, b)
    assert compared > 50


@pytest.mark.parametrize("name", LIBRARIES)
def test_either_reads_what_either_writes(name: str):
    """Any state, written by the real library and by this one, is read equally by both."""
    random = Random(f"written alike {name}")
    for _ in range(40):
        written_alike(LIBRARIES[name], random)


@pytest.mark.parametrize("name", LIBRARIES)
def test_damaged_files_are_read_alike_or_refused(name: str):
    """If the real library reads something from a damaged file, this one reads the same or refuses it."""
    random = Random(f"damaged alike {name}")
    assert sum(damaged_alike(LIBRARIES[name], random) for _ in range(200)) >= 5
