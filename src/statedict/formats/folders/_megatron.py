"""Checkpoints of Megatron-core in the format `torch_dist`: a torch.distributed.checkpoint folder, and `common.pt`.

Tensors have flat names there: those of the model, and `optimizer.state.exp_avg.` followed by the name of a parameter.
A name such as `rng_state/shard_0.1_1.2` is that of an object of one rank: its place in a grid of ranks, and the shape
of the grid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from statedict.files import Folder
from statedict.state import Leaf

from ...errors import UnknownFormatError
from .._json import read_json_file
from .._limits import Limits
from .._names import METADATA
from ..checkpoint._checkpoint import Checkpoint
from ..many_files._distributed import read_as_saved, read_distributed
from ..many_files._nesting import NamedValue, nested
from ._roots import MODEL, read_with_values

CONFIG = "metadata.json"
COMMON = "common.pt"
BACKEND = "torch_dist"
OBJECT = re.compile(r"(?P<name>.+)/shard_(?P<place>\d+(?:\.\d+)*)_(?P<grid>\d+(?:\.\d+)*)")
# A chained optimizer may put its number before the name.
STATE = re.compile(r"(?:chained_\d+\.)?optimizer\.state\.(?P<kind>\w+)\.(?P<parameter>.+)")
BUFFERS = re.compile(r"(?P<chained>chained_\d+\.)?optimizer\.distributed\.(?P<name>.+)")
EXTRA = "_extra_state"
FLAT_BUFFERS = (
    "optimizer/distributed: the optimizer's state is stored in the flat buffers of its ranks (dp_reshardable), which do not "
    "say which elements belong to which parameter"
)


def read_torch_dist(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a Megatron-core folder: `model`, `optimizer` (`state` by name of the parameter), and what
    `common.pt` has: iteration, arguments, learning rate schedule …
    """
    described = any(map(METADATA.fullmatch, folder.files))
    # If one of them is missing, `metadata.json` says what the folder should be.
    backend = BACKEND if described and COMMON in folder.files else _backend(folder, limits)
    if backend != BACKEND and described:
        return read_distributed(folder, limits)
    if backend != BACKEND:
        raise UnknownFormatError(
            f"this is a Megatron-core checkpoint in the format {backend!r}"[:200] + f"; only {BACKEND!r} can be read",
            file=folder.path,
            hint="convert it with Megatron",
        )
    checkpoint = read_with_values(
        folder, "megatron", lambda: _tensors(folder, limits), COMMON, limits, producer="Megatron-core"
    )
    optimizer = checkpoint.object.get("optimizer")
    if isinstance(optimizer, dict) and "state" in optimizer:
        optimizer.setdefault("param_groups", _groups(optimizer))
    buffers = optimizer.get("distributed") if isinstance(optimizer, dict) else None
    if isinstance(buffers, dict) and any(isinstance(value, Leaf) for value in buffers.values()):
        checkpoint.notes.append(FLAT_BUFFERS)
    return checkpoint


def _backend(folder: Folder, limits: Limits) -> object:
    """Return the format of the tensors that `metadata.json` names; None if it names none."""
    if CONFIG not in folder.files:
        return None
    config = read_json_file(folder.file(CONFIG), limits)
    return config.get("sharded_backend") if isinstance(config, dict) else None


def _tensors(folder: Folder, limits: Limits) -> Checkpoint:
    checkpoint = read_as_saved(folder, limits)
    placed = [_placed(str(name), value) for name, value in checkpoint.object.items()]
    checkpoint.object = nested(placed, folder.path)
    return checkpoint


def _placed(name: str, value: Any) -> NamedValue:
    """Return where a value of the folder is in the tree."""
    rank = OBJECT.fullmatch(name)
    # Megatron stores a list of the objects that one rank has under the same name.
    value = value[0] if rank and isinstance(value, list) and len(value) == 1 else value
    plain = rank["name"] if rank else name
    of_rank = (rank["place"],) if rank and set(rank["grid"]) - {"1", "."} else ()
    if (match := STATE.fullmatch(plain)) is not None:
        return NamedValue(name, ("optimizer", "state", match["parameter"], match["kind"], *of_rank), value)
    if (match := BUFFERS.fullmatch(plain)) is not None:
        steps = "optimizer", "distributed", f"{match['chained'] or ''}{match['name']}"
        return NamedValue(name, (*steps, *of_rank), value)
    if rank is None:
        return NamedValue(name, (MODEL, plain), value)
    # Extra states beside the tensors would not be tensors of the model.
    return NamedValue(name, ("extra_state", plain, *of_rank) if plain.endswith(EXTRA) else (plain, *of_rank), value)


def _groups(optimizer: Mapping[Any, Any]) -> list[Any]:
    """Return the groups of the optimizers in `common.pt`: one, or several numbered ones (chained), each perhaps wrapped for
    mixed precision.
    """
    chained = [optimizer[key] for key in sorted(key for key in optimizer if type(key) is int)]
    found = []
    for each in chained or [optimizer]:
        inner = each.get("optimizer", each) if isinstance(each, Mapping) else {}
        groups = inner.get("param_groups") if isinstance(inner, Mapping) else None
        found += groups if isinstance(groups, list) else []
    return found
