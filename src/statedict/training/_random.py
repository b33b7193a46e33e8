"""Random state: the global generators of Python, NumPy and torch (with CUDA), so that a resumed run draws the same numbers.

Only libraries that are imported count: a generator of NumPy or torch that was never imported has not been used.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from statedict import _api
from statedict.formats.runs import Manifest

from . import _ranks
from ._keep import Place
from ._run import inside


def read() -> dict[str, Any]:
    """Return the state of every global random generator, as plain values and arrays. Partner of `write_random`.

    >>> from statedict.training import read_random
    >>> sorted(read_random())[:2]
    ['numpy', 'python']
    """
    state: dict[str, Any] = {"python": random.getstate()}
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state(legacy=False)
    if sys.modules.get("torch") is not None:
        from statedict.torch import read_random

        state["torch"] = read_random()
    return state


def write(state: dict[str, Any]) -> None:
    """Restore the generators. Partner of `read_random`. Raises ValueError if a state does not fit its generator.

    >>> import random
    >>> from statedict.training import read_random, write_random
    >>> state = read_random()
    >>> first = random.random()
    >>> write_random(state)
    >>> random.random() == first
    True
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "numpy" in state:
        import numpy as np

        np.random.set_state(state["numpy"])
    if "torch" in state:
        from statedict.torch import write_random

        write_random(state["torch"])


def file_of(rank: int) -> str:
    """The file of a rank's random state, if several processes train."""
    return f"random-{rank:05d}.pt"


def stored(place: Place, manifest: Manifest) -> dict[str, Any] | None:
    """The random state in a checkpoint: this rank's own, if every rank saved one; None if it was not saved."""
    name = manifest.objects.get("random", file_of(_ranks.ranks()[0]))
    if name not in manifest.files:
        return None
    found: dict[str, Any] = _api.load(inside(place, name))
    return found
