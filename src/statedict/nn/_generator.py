"""The one random generator of this room: initial weights and dropout come from it.

It is NumPy's. The ranges of initial weights are PyTorch's, their numbers are not: the two have different generators.
"""

from __future__ import annotations

import numpy as np


class _State:
    generator: np.random.Generator | None = None


def manual_seed(seed: int) -> np.random.Generator:
    """Seed the generator that makes initial weights and dropout masks; returns it.

    >>> manual_seed(0).random() == manual_seed(0).random()
    True
    """
    _State.generator = np.random.default_rng(seed)
    return _State.generator


def generator() -> np.random.Generator:
    """The generator in use; seeded by the operating system until `manual_seed` is called.

    It is made at its first use: importing `numpy.random` takes 15 ms.
    """
    if _State.generator is None:
        _State.generator = np.random.default_rng()
    return _State.generator
