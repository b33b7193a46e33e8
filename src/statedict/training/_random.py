"""Random state: Python's, NumPy's and torch's global generators (CUDA's too), so that a resumed run draws the same.

Only generators whose library is loaded count: NumPy or torch that was never imported has drawn nothing.
"""

from __future__ import annotations

import random
import sys
from typing import Any


def read() -> dict[str, Any]:
    """The state of every global generator, as plain values and arrays; the partner of `write`."""
    state: dict[str, Any] = {"python": random.getstate()}
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state(legacy=False)
    if "torch" in sys.modules:
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
