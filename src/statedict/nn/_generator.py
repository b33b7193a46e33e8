"""The random generator of this package, for initial weights and dropout.

It is a NumPy generator. Initial weights have the same ranges as in PyTorch but different values, because the generators
differ.
"""

from __future__ import annotations

import numpy as np


class _State:
    generator: np.random.Generator | None = None


def manual_seed(seed: int) -> np.random.Generator:
    """Seed the generator of initial weights and dropout masks, and return it.

    >>> manual_seed(0).random() == manual_seed(0).random()
    True
    """
    _State.generator = np.random.default_rng(seed)
    return _State.generator


def generator() -> np.random.Generator:
    """Return the current generator; it is seeded by the operating system until `manual_seed` is called.

    It is created at the first use, because importing `numpy.random` takes 15 ms.
    """
    if _State.generator is None:
        _State.generator = np.random.default_rng()
    return _State.generator
