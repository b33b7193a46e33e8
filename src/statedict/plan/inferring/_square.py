"""Decide which square matrices are transposed, by the other matrices near them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from statedict.state import parents

from ..operations._specs import Shape
from ._rules import Made
from ._words import alike, words


def transposed(made: Sequence[Made], shapes: Mapping[str, Shape | None]) -> list[int]:
    """Return the positions of the square matrices in `made` that are transposed if the matrices near them are.

    The shape of a square matrix does not change, but checkpoints that store matrices as (inputs, outputs) store all of them
    so, except for embeddings.
    """
    votes: dict[str, Counter[bool]] = {}
    for one in made:
        shape = shapes[one.sources[0]] or ()
        if "transpose" in one.operations or (len(shape) == 2 and shape[0] != shape[1] and not _embeds(one)):
            for path in parents(one.sources[0]):
                votes.setdefault(path, Counter())["transpose" in one.operations] += 1
    if not any(counted[True] for counted in votes.values()):
        return []
    return [number for number, one in enumerate(made) if _is_square(one, shapes) and _likely(one, votes)]


def _is_square(one: Made, shapes: Mapping[str, Shape | None]) -> bool:
    shape = shapes[one.sources[0]] or ()
    return not one.operations and len(shape) == 2 and shape[0] == shape[1] > 1 and not _embeds(one)


def _likely(one: Made, votes: Mapping[str, Counter[bool]]) -> bool:
    """Whether most matrices in the nearest module that has any are transposed."""
    near = next((votes[path] for path in parents(one.sources[0]) if path in votes), Counter[bool]())
    return near[True] > near[False]


def _embeds(one: Made) -> bool:
    """Whether a tensor is an embedding, whose rows are looked up in both conventions."""
    said = (word for name in (*one.sources, *one.targets) for word in words(name))
    return any(alike(word, other) >= 0.8 for word in said for other in ("embedding", "token", "position"))
