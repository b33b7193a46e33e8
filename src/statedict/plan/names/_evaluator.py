"""Make the values of a plan without reading: a value that is not passed on unchanged becomes a computed leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statedict.state import Casts, DType, Leaf

from ._recipe import Offer


class Evaluator:
    """Evaluates each recipe once, and each cast of a tied tensor once, so that ties are preserved."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._made: dict[int, list[Leaf]] = {}
        self._casts = Casts()

    def offered(self, offer: Offer) -> Any:
        """Return the value of an offer: the source's own value, unchanged, or a computed leaf."""
        if isinstance(offer, str):
            return self._given[offer]
        key = id(offer.recipe)
        if key not in self._made:
            self._made[key] = offer.recipe.leaves(self._given)
        return self._made[key][offer.number]

    def cast(self, leaf: Leaf, dtype: DType) -> Leaf:
        """Return the leaf cast to another dtype."""
        return self._casts.leaf(leaf, dtype)
