"""Tied tensors in safetensors files: written once, under their first name; the metadata maps each other name to it.

The format cannot express that tensors share memory. `safetensors.torch.save_model` leaves out all names but one of a tied
tensor and records the others as `{"lm_head.weight": "model.embed_tokens.weight"}` in the metadata; we do the same. In our
own files an annotation lists which entries these are, and the place of each name in the state. In other files, whose
metadata may contain any text, an entry counts as one only if its value is the name of a tensor and both have the same
last part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from statedict.state import Leaf, leaf_of, raw_values

from ...errors import SaveError
from ..storages._named import ties
from ._header import Header
from ._wrappers import stored_names


class Alias(NamedTuple):
    """Another name of a tensor in the file, and its place among all names of the state."""

    of: str
    place: int


def tied_aliases(leaves: Mapping[str, Leaf], metadata: Mapping[str, str]) -> dict[str, Alias]:
    """Return the names that are not written because they are tied to an earlier one.

    Raises SaveError if the metadata has one of them as a key.
    """
    groups = ties(leaves)
    places = {name: place for place, name in enumerate(leaves)} if groups else {}
    aliases = {name: Alias(first, places[name]) for first, *others in groups for name in others}
    for name in aliases:
        if name in metadata or name.startswith("statedict."):
            raise SaveError(
                f"{name!r} is tied to {aliases[name].of!r}, which is recorded in the metadata under its name; but the "
                "metadata has another entry of this name: rename one of them"
            )
    return dict(sorted(aliases.items(), key=lambda item: item[1].place))


def recorded_aliases(header: Header, places: Mapping[str, int] | None) -> dict[str, Alias]:
    """Return the aliases in the metadata of a file; `places` are those that its annotations list, None for other writers."""
    entries, metadata = header.entries, header.metadata
    if places is not None:
        return {name: Alias(metadata[name], place) for name, place in places.items()}
    found = [
        (name, of)
        for name, of in metadata.items()
        if name not in entries and of in entries and name.rpartition(".")[2] == of.rpartition(".")[2]
    ]
    return {name: Alias(of, place) for place, (name, of) in enumerate(found, len(entries))}


def with_aliases(names: Sequence[str], aliases: Mapping[str, Alias]) -> list[str]:
    """Return the names of the state in order: those in the file, and the aliases at their places."""
    if not aliases:
        return list(names)
    others, by_place = iter(names), {alias.place: name for name, alias in aliases.items()}
    return [by_place[n] if n in by_place else next(others) for n in range(len(names) + len(aliases))]


def names_in_file(state: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names under which the file of a state has each of its tensors: none for one that is tied to an earlier."""
    # Kept until all are compared: a leaf of a copied array has an address only while it lives.
    leaves = {name: leaf_of(value) for name, value in raw_values(state).items()}
    groups = ties({name: leaf for name, leaf in leaves.items() if isinstance(leaf, Leaf)})
    aliases = {name for group in groups for name in group[1:]}
    return {name: [] if name in aliases else stored_names(name, value) for name, value in raw_values(state).items()}
