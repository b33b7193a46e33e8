"""Random state: Python's, NumPy's and torch's global generators (CUDA's too), so that a resumed run draws the same.

Only generators whose library is loaded count: NumPy or torch that was never imported has drawn nothing.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from statedict import _api

from . import _world
from ._manifest import Manifest


def read() -> dict[str, Any]:
    """The state of every global generator, as plain values and arrays; the partner of `write`."""
    state: dict[str, Any] = {"python": random.getstate()}
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state(legacy=False)
    if sys.modules.get("torch") is not None:
        from statedict.torch import read_random

        state["torch"] = read_random()
    return state


def write(state: dict[str, Any]) -> None:
    """Put the generators back; the partner of `read`. Raises ValueError where a state is not of its generator."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "numpy" in state:
        import numpy as np

        np.random.set_state(state["numpy"])
    if "torch" in state:
        from statedict.torch import write_random

        write_random(state["torch"])


def file_of(rank: int) -> str:
    """Where a rank's state lies where several processes train."""
    return f"random-{rank:05d}.pt"


def stored(path: Path, manifest: Manifest) -> dict[str, Any] | None:
    """What a checkpoint has for `write`: this rank's own state, where every rank saved its own; None where it has none."""
    name = manifest.objects.get("random", file_of(_world.world()[0]))
    if name not in manifest.files:
        return None
    found: dict[str, Any] = _api.load(path / name)
    return found
