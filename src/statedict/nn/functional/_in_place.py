"""Write results into the input too, if its library supports this."""

from __future__ import annotations

from typing import Any

from .._arrays import Array, put


def into(place: Any, values: Array, inplace: bool) -> Array:
    """Return the values; if they are also to be written into `place`, write them and return `place`."""
    if not inplace:
        return values
    put(place, values)
    return place
