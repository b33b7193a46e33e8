"""Open the files of a Llama that is divided for tensor parallelism: `consolidated.00.pth`, `consolidated.01.pth` …

The files do not say how the tensors are divided. Meta's code does, and transformers' `convert_llama_weights_to_hf.py`:
column-parallel layers along their outputs, row-parallel layers along their inputs. Norms and frequencies are in every file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from statedict.files import Folder
from statedict.state import Box, Leaf, Piece, join_pieces

from ...errors import FormatError
from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint
from ._parts import opened_ranks
from ._shards import joined, state_of

FILE = re.compile(r"consolidated\.(?P<number>\d\d)\.pth")
NAME = "consolidated.{:02}.pth"
LAYER = re.compile(r"layers\.\d+\.(?:attention\.inner_attention\.)?")
EMBEDDING = "tok_embeddings.weight"
# Square in every Llama, and divided along its columns: so each file says how many files there are.
SQUARE = "layers.0.attention.wo.weight"
# The axis that a tensor is divided along, by its name without `layers.0.`; -1: it is the same in all files.
AXES = {
    **dict.fromkeys((f"attention.{layer}.weight" for layer in ("wq", "wk", "wv")), 0),
    **dict.fromkeys(("feed_forward.w1.weight", "feed_forward.w3.weight", "output.weight"), 0),
    **dict.fromkeys(("attention.wo.weight", "feed_forward.w2.weight"), 1),
    **dict.fromkeys(("attention_norm.weight", "ffn_norm.weight", "norm.weight", "rope.freqs"), -1),
}

State = Mapping[str, Leaf]


def read_llama(folder: Folder, names: Sequence[str], limits: Limits) -> Checkpoint | None:
    """Open the Checkpoint that the files of a Llama form; None if they contain another model, or one that is not divided.

    Raises FormatError if a file is missing or damaged: hardly any tensor could be read without it.
    """
    shards = opened_ranks(folder, names, limits)
    name, state = next((name, state_of(shard)) for name, shard in shards.items())
    square = state.get(SQUARE)
    if not isinstance(square, Leaf) or len(square.spec.shape) != 2 or not square.spec.shape[1]:
        return None
    size, columns = square.spec.shape
    if size // columns < 2 and len(names) < 2:
        return None
    expected = [NAME.format(number) for number in range(size // columns)]
    if {*expected} != {*names}:
        raise FormatError(
            f"{SQUARE} is {size:,} × {columns:,} in {name}, so the model is divided among {len(expected):,} files, but "
            f"{_difference(expected, names)}",
            file=folder.path,
        )
    states = {name: _tensors(shards[name]) for name in expected}
    values = {name: _whole(name, states, size, folder.path) for name in _common_names(states, folder.path)}
    notes = [f"the tensors are joined from the files of {len(expected):,} tensor-parallel ranks"]
    return joined(folder.path, dict(values), shards, 0, {}, notes, folder.close)


def _difference(expected: Sequence[str], names: Sequence[str]) -> str:
    missing, other = ([name for name in one if name not in two] for one, two in ((expected, names), (names, expected)))
    return f"{', '.join(missing)} is missing" if missing else f"there is also {', '.join(other)}"


def _tensors(shard: Checkpoint) -> State:
    state = state_of(shard)
    for name, value in state.items():
        if not isinstance(value, Leaf):
            raise FormatError(f"expected a tensor, found {type(value).__name__}", file=shard.path, member=name)
    return state


def _common_names(states: Mapping[str, State], where: str) -> Sequence[str]:
    first, *others = states
    for other in others:
        for name in states[first].keys() ^ states[other].keys():
            has, lacks = (first, other) if name in states[first] else (other, first)
            raise FormatError(f"it is in {has}, but not in {lacks}", file=where, member=name)
    return list(states[first])


def _whole(name: str, states: Mapping[str, State], size: int, where: str) -> Leaf:
    """Return the tensor that the files have parts of; `size` is that of the hidden state."""
    parts = [state[name] for state in states.values()]
    kinds = [(part.spec.dtype, part.spec.shape) for part in parts]
    for file, (dtype, shape) in zip(states, kinds):
        if (dtype, shape) != kinds[0]:
            first = f"{kinds[0][0]} {list(kinds[0][1])} in {next(iter(states))}"
            raise FormatError(f"its parts differ: {first}, {dtype} {list(shape)} in {file}", file=where, member=name)
    shape, axis = parts[0].spec.shape, _axis(name, parts[0], size)
    if axis is None:
        raise FormatError(
            "it is not known how the parts of this tensor are joined",
            file=where,
            member=name,
            hint="open one of the files",
        )
    if axis < 0:
        parts, axis = parts[:1], 0
    pieces = [Piece(_box(shape, axis, number), part) for number, part in enumerate(parts)]
    whole = tuple(length * len(parts) if at == axis else length for at, length in enumerate(shape))
    return join_pieces(parts[0].spec.dtype, whole, pieces, parts[0].traits)


def _axis(name: str, part: Leaf, size: int) -> int | None:
    # Llama 3 divides the vocabulary, Llama 1 and 2 the hidden state.
    if name == EMBEDDING and len(part.spec.shape) == 2:
        return 0 if part.spec.shape[1] == size else 1
    axis = AXES.get(LAYER.sub("", name, count=1))
    return axis if len(part.spec.shape) == 2 or axis == -1 else None


def _box(shape: tuple[int, ...], axis: int, number: int) -> Box:
    return Box(tuple(length * number if at == axis else 0 for at, length in enumerate(shape)), shape)
