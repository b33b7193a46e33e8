"""One rank's part of a ZeRO optimizer: flat vectors, one for each group of parameters, of weights and optimizer state.

ZeRO 1 and 2, and the optimizer for bfloat16, divide one flat vector for each parameter group; ZeRO 3 has a flat vector for
each sub-group, in which are the rank's parts of the parameters. The pickles name classes of DeepSpeed for a few values
(`ZeroStageEnum`, `fragment_address`), which are inert here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from statedict.state import Box, Leaf, Opaque, Storage, contiguous, region

from ...errors import FormatError
from ..storages._describe import shown

FLAT, FLAT_3 = "single_partition_of_fp32_groups", "fp32_flat_groups"
BASE, BASE_3 = "base_optimizer_state", "optimizer_state_dict"
STEP = "step"
# The keys that are read here; every other value in a file becomes a root.
READ = frozenset(
    (
        *(FLAT, FLAT_3, BASE, BASE_3, "param_groups"),
        *("group_paddings", "param_alignment_paddings", "param_slice_mappings"),
    )
)


class State(NamedTuple):
    """The optimizer's values of one group: flat vectors like that of the weights, and others (the number of steps)."""

    vectors: dict[str, Leaf]
    others: dict[str, Any]


class Partition(NamedTuple):
    """One rank's part of the optimizer.

    Attributes:
        file: the path of the file.
        stage: whether the parameters are partitioned one by one (3) or in flat groups (2).
        counts: of each group, the number of ranks that it is divided among.
        weights: the flat vector of each group.
        states: of each group, the optimizer's values.
        param_groups: those of the optimizer, whose `params` are numbers of groups; None if the file has none.
        paddings: of each group, the elements that follow each parameter; None if there are none.
        mappings: of each group, the number of elements of each parameter here, by name.
        facts: everything else.
    """

    file: str
    stage: int
    counts: list[int]
    weights: list[Leaf]
    states: list[State]
    param_groups: list[dict[str, Any]] | None
    paddings: list[list[int]] | None
    mappings: list[dict[str, int]] | None
    facts: dict[str, Any]


def read_partition(content: Mapping[Any, Any], file: str) -> Partition:
    """Return what is in the content of an `*_optim_states.pt`; raise FormatError if it is not of this kind."""
    found = content.get("optimizer_state_dict")
    if not isinstance(found, dict) or (FLAT not in found and FLAT_3 not in found):
        raise FormatError("it has no fp32 weights of a ZeRO optimizer", file=file)
    stage = 3 if FLAT_3 in found else 2
    flat = _list(found, FLAT if stage == 2 else FLAT_3, file)
    weights = [vector(value, file, f"group {number}") for number, value in enumerate(flat)]
    counts = found.get("partition_count")
    counts = [counts] * len(weights) if type(counts) is int else counts
    if not isinstance(counts, list) or len(counts) != len(weights) or not all(type(n) is int and n > 0 for n in counts):
        raise FormatError("its partition_count does not give the number of ranks of each group", file=file)
    states, groups = _states(found.get(BASE if stage == 2 else BASE_3), len(weights), file)
    paddings = found.get("param_alignment_paddings")
    if paddings is not None:
        listed = _list(found, "param_alignment_paddings", file)
        paddings = [_numbers(each, file, "param_alignment_paddings") for each in listed]
    mappings = found.get("param_slice_mappings")
    return Partition(
        file,
        stage,
        counts,
        weights,
        [_state(values, leaf, stage, file) for values, leaf in zip(states, weights)],
        groups,
        paddings,
        None if mappings is None else [_mapping(each, file) for each in _list(found, "param_slice_mappings", file)],
        facts_in(found),
    )


def facts_in(found: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what is not read here, as plain values: the attributes of the loss scaler, the number of the stage."""
    return {key: _plain(value) for key, value in found.items() if type(key) is str and key not in READ}


def _plain(value: object) -> object:
    if isinstance(value, Opaque) and value.args and type(value.args[0]) is int:
        return value.args[0]
    return value.attributes() if isinstance(value, Opaque) and isinstance(value.state, dict) else value


def vector(value: object, file: str, member: str) -> Leaf:
    """Return a flat vector, whose bytes are in main memory when they are read, whatever device they were saved from."""
    if not isinstance(value, Leaf) or len(value.spec.shape) != 1 or not value.spec.is_contiguous:
        raise FormatError(f"expected a flat tensor, found {shown(value)}", file=file, member=member)
    return on_cpu(value)


def _state(values: Mapping[Any, Any], weights: Leaf, stage: int, file: str) -> State:
    """Return the values of a group. In ZeRO 1 and 2, vectors may have the padding that the weights were saved without."""
    state = State({}, {})
    for key, value in values.items():
        if type(key) is not str:
            raise FormatError(f"a value of its optimizer's state has the name {shown(key)}, not text", file=file)
        flat = isinstance(value, Leaf) and len(value.spec.shape) == 1 and key != STEP
        size = value.spec.numel - weights.spec.numel if flat else -1
        if size == 0 or (size > 0 and stage == 2):
            state.vectors[key] = vector(value, file, key)
        else:
            state.others[key] = value
    return state


def on_cpu(leaf: Leaf) -> Leaf:
    """Return the same leaf without the device that it was saved from: that of one rank means nothing to the whole."""
    storage = leaf.storage
    if storage.location == "cpu":
        return leaf
    return Leaf(leaf.spec, Storage(storage.source, storage.key, storage.nbytes, storage.where), leaf.traits)


def reshaped(leaf: Leaf, start: int, shape: tuple[int, ...]) -> Leaf:
    """Return the elements of a flat vector from `start` on as a tensor of this shape, in a storage of its own."""
    part = region(leaf, Box((start,), (prod(shape),)))
    return Leaf(contiguous(leaf.spec.dtype, shape, part.spec.offset), part.storage)


def _states(base: object, count: int, file: str) -> tuple[list[Mapping[Any, Any]], list[dict[str, Any]] | None]:
    """Return the optimizer's values of each group, and its param_groups.

    An elastic checkpoint has a list of the values; others have the state dict of a PyTorch optimizer.
    """
    if isinstance(base, list):
        if len(base) != count or not all(isinstance(each, dict) for each in base):
            raise FormatError(f"it has {count} groups of weights, and not as many of the optimizer's state", file=file)
        return base, None
    state = base.get("state") if isinstance(base, dict) else None
    if not isinstance(base, dict) or not isinstance(state, dict):
        raise FormatError("it has no state dict of an optimizer", file=file)
    groups = param_groups(base, count, file)
    entries = [state.get(number, {}) for number in range(count)]
    if not all(isinstance(entry, dict) for entry in entries):
        raise FormatError("the state of its optimizer is not a dict for each group", file=file)
    return entries, groups


def param_groups(optimizer: Mapping[Any, Any], count: int, file: str) -> list[dict[str, Any]]:
    """Return the param_groups of an optimizer, whose `params` are numbers of its `count` flat vectors."""
    groups = optimizer.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(each, dict) for each in groups):
        raise FormatError("its optimizer has no param_groups", file=file)
    for group in groups:
        if any(number >= count for number in _numbers(group.get("params"), file, "param_groups")):
            raise FormatError(f"its param_groups refer to other groups than its {count} groups of weights", file=file)
    return groups


def _mapping(value: object, file: str) -> dict[str, int]:
    """Return how many elements of each parameter are here."""
    found: dict[str, int] = {}
    for name, address in value.items() if isinstance(value, dict) else ():
        numel = address.attributes().get("numel") if isinstance(address, Opaque) else None
        if type(name) is not str or type(numel) is not int or not 0 <= numel < 1 << 63:
            raise FormatError("its param_slice_mappings do not give the size of a parameter", file=file)
        found[name] = numel
    return found


def _numbers(value: object, file: str, what: str) -> list[int]:
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < 1 << 63 for n in value):
        raise FormatError(f"its {what} are {shown(value)}, not a list of non-negative integers", file=file)
    return value


def _list(found: Mapping[Any, Any], key: str, file: str) -> list[Any]:
    value = found[key]
    if not isinstance(value, (list, tuple)):
        raise FormatError(f"its {key} is {shown(value)}, not a list", file=file)
    return list(value)
