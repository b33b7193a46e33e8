"""Decide which square matrices are transposed, by the other matrices near them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from statedict.state import parents

from ..operations._specs import Shape
from ._rules import Converted
from ._words import alike, words

_Place = tuple[str, str, str]


def squares(made: Sequence[Converted], shapes: Mapping[str, Shape | None], any_turned: bool) -> dict[int, bool]:
    """Return whether to transpose the square matrices in `made`, by position; empty if none may be transposed.

    `any_turned` says that the shapes show transposed matrices, even if none of these is in `made`.

    The shape of a square matrix does not show it, but models that store matrices as (inputs, outputs) do so for all of
    them, except for embeddings. Therefore each is treated as most matrices with the same last names in the nearest module
    are. A parameter of its own (CLIP's `text_projection`) is used as `x @ parameter`, which is the transpose of the weight
    of a linear layer.
    """
    votes: dict[_Place, Counter[bool]] = {}
    for one in made:
        turned = "transpose" in one.operations
        if turned or (_is_matrix(one, shapes) and not _is_square(one, shapes)):
            for place in _places(one):
                votes.setdefault(place, Counter())[turned] += 1
    any_turned |= any(counted[True] for counted in votes.values())
    asked = (number for number, one in enumerate(made) if _is_matrix(one, shapes) and _is_square(one, shapes))
    return {number: _likely(made[number], votes) for number in asked if any_turned or _one_weight(made[number])}


def _one_weight(one: Converted) -> bool:
    """Whether only one side calls it a weight, or a kernel: other parameters are usually (inputs, outputs)."""
    *_, (_, *last) = _places(one)
    said = [words(name)[-1:] for name in last]
    return any(said.count((word,)) == 1 for word in ("weight", "kernel"))


def _is_matrix(one: Converted, shapes: Mapping[str, Shape | None]) -> bool:
    return not one.operations and len(shapes[one.sources[0]] or ()) == 2 and not _embeds(one)


def _is_square(one: Converted, shapes: Mapping[str, Shape | None]) -> bool:
    return len(set(shapes[one.sources[0]] or ())) == 1


def _likely(one: Converted, votes: Mapping[_Place, Counter[bool]]) -> bool:
    near = next((votes[place] for place in _places(one) if place in votes), Counter({True: _one_weight(one)}))
    return near[True] > near[False]


def _places(one: Converted) -> Iterator[_Place]:
    """Return the modules above a tensor, the nearest first, each with the last names on both sides."""
    last = one.sources[0].rpartition(".")[2], one.targets[0].rpartition(".")[2]
    for path in parents(one.sources[0]):
        yield (path, *last)


def _embeds(one: Converted) -> bool:
    """Whether a tensor is an embedding, whose rows are looked up in both conventions."""
    said = (word for name in (*one.sources, *one.targets) for word in words(name))
    return any(alike(word, other) >= 0.8 for word in said for other in ("embedding", "token", "position"))
