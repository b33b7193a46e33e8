"""The state of the optimizer by the names of parameters, put together from the flat vectors of the ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from statedict.state import Leaf, computed

from ...errors import FormatError
from ._partitions import Partition, on_cpu
from ._places import ParameterPlace


def optimizer(
    placed: Mapping[str, ParameterPlace], partitions: Mapping[int, Partition], missing: str
) -> dict[str, Any]:
    """Return the state of the optimizer as PyTorch has it, but with the names of parameters instead of their numbers."""
    first = partitions[min(partitions)]
    state: dict[str, dict[str, Any]] = {}
    for name, place in placed.items():
        found = first.states[place.group]
        vectors = {
            key: {rank: each.states[place.group].vectors[key] for rank, each in partitions.items()}
            for key in found.vectors
        }
        entry = {key: copied(value) for key, value in found.others.items()}
        entry.update({key: place.leaf(name, ranks, first.file, missing) for key, ranks in vectors.items()})
        if entry:
            state[name] = entry
    names: list[list[str]] = [[] for _ in first.weights]
    for name, place in placed.items():
        names[place.group].append(name)
    return {"state": state, "param_groups": named_groups(first.param_groups, names)}


def named_groups(groups: Sequence[dict[str, Any]] | None, names: Sequence[list[str]]) -> list[dict[str, Any]]:
    """Return an optimizer's param_groups, whose `params` are numbers of flat vectors, with the names of parameters.

    `names`: those in each flat vector. An elastic checkpoint has no param_groups.
    """
    if groups is None:
        return [{"params": inside} for inside in names]
    return [
        {**group, "params": [name for number in group["params"] if number < len(names) for name in names[number]]}
        for group in groups
    ]


def copied(value: object) -> object:
    """Return a copy of a value that the parameters of a group share: a program may change that of one parameter."""
    if not isinstance(value, Leaf):
        return value
    leaf = on_cpu(value)
    return computed(leaf.spec.dense(), [leaf], lambda array: array)


def joined_optimizers(stages: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the optimizer of a model whose stages of a pipeline have one each; raise FormatError if they differ."""
    every = list(stages.values())
    groups = [
        {**group, "params": list(dict.fromkeys(name for each in same for name in each["params"]))}
        for same in zip(*(each["param_groups"] for each in every))
        for group in same[:1]
    ]
    for file, each in stages.items():
        if len(each["param_groups"]) != len(groups):
            raise FormatError("its optimizer has other groups than those of the other stages", file=file)
    return {"state": {name: entry for each in every for name, entry in each["state"].items()}, "param_groups": groups}
