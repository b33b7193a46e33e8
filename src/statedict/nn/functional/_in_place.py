"""Results that are written into the input as well, where its library can."""

from __future__ import annotations

from typing import Any

from .._arrays import Array, put


def into(place: Any, values: Array, inplace: bool) -> Array:
    """The values; where they are to go into `place` as well, `place` with them."""
    if not inplace:
        return values
    put(place, values)
    return place
