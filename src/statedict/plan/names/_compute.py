"""Makes the values that were decided on. Reads nothing: what is not passed through is a leaf, computed when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statedict.state import Casts, DType, Leaf

from ._recipe import Offer


class Cook:
    """Makes each recipe once, and each cast of a tied tensor once, so that ties stay ties."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._made: dict[int, list[Leaf]] = {}
        self._casts = Casts()

    def offered(self, offer: Offer) -> Any:
        """The value of an offer: the source's own, untouched, or a leaf."""
        if isinstance(offer, str):
            return self._given[offer]
        key = id(offer.recipe)
        if key not in self._made:
            self._made[key] = offer.recipe.leaves(self._given)
        return self._made[key][offer.number]

    def cast(self, leaf: Leaf, dtype: DType) -> Leaf:
        """The leaf as another dtype."""
        return self._casts.leaf(leaf, dtype)
