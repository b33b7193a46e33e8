"""Of inputs that are nearly right, those that torch reads too give the same values there."""

from __future__ import annotations

import io
from random import Random

import numpy as np
import pytest
from tests.fuzz.targets import TARGETS
from tests.hostile.reading import read_all

from statedict.errors import FormatError

torch = pytest.importorskip("torch")


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


def same(ours: object, theirs: object) -> bool:
    if not isinstance(ours, np.ndarray) or not isinstance(theirs, torch.Tensor):
        return isinstance(ours, np.ndarray) == isinstance(theirs, torch.Tensor)
    if ours.shape != tuple(theirs.shape):
        return False
    # Expanded views may show terabytes: a corner will do.
    corner = tuple(slice(0, 4) for _ in ours.shape)
    shown = theirs[corner].contiguous().reshape(-1).view(torch.uint8)
    return np.ascontiguousarray(ours[corner]).tobytes() == bytes(shown.tolist())


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
            assert all(same(a[str(key)], value) for key, value in b.items())
    assert compared > 50
