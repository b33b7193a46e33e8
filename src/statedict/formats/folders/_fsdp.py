"""The files of models and optimizers that accelerate saves with FSDP, and transformers' Trainer through it.

Sharded states are torch.distributed.checkpoint folders (`pytorch_model_fsdp_0/`, `optimizer_0/`), with the state under one
key. With `use_dcp=False` each rank writes a file of DTensors (`optimizer_0_rank1.bin`). With `LOCAL_STATE_DICT` such a
file contains flat parameters, each of which joins several tensors of the model; the file does not say which.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from statedict.files import Folder

from ...errors import FormatError
from .._limits import Limits
from .._names import FSDP_FOLDER, ROLE
from ..checkpoint._checkpoint import Checkpoint
from ..many_files._parts import read_ranks
from ._opened import opened
from ._roots import MODEL, numbered

STEM = "pytorch_model_fsdp"


def fsdp_members(folder: Folder, limits: Limits) -> dict[str, Callable[[], Checkpoint]]:
    """Return the roots of a folder that accelerate saved in parts, and the functions that open them."""
    members: dict[str, Callable[[], Checkpoint]] = {
        _root(*name.rsplit("_", 1)): partial(_of_folder, folder, name, limits)
        for name in filter(FSDP_FOLDER.fullmatch, folder.folders)
    }
    ranks: dict[str, dict[int, str]] = {}
    for name in folder.files:
        match = ROLE.fullmatch(name)
        if match and match["rank"]:
            ranks.setdefault(_root(match["stem"], match["number"]), {})[int(match["rank"])] = name
    return members | {root: partial(_of_ranks, folder, files, limits) for root, files in ranks.items()}


def _root(stem: str, number: str | None) -> str:
    return numbered(MODEL if stem == STEM else stem, number)


def _of_folder(folder: Folder, name: str, limits: Limits) -> Checkpoint:
    checkpoint = opened(folder, name, limits)
    if isinstance(checkpoint.object, dict) and len(checkpoint.object) == 1:
        (checkpoint.object,) = checkpoint.object.values()
    return checkpoint


def _of_ranks(folder: Folder, files: dict[int, str], limits: Limits) -> Checkpoint:
    first = files[min(files)]
    whole = read_ranks(folder, dict(sorted(files.items())), limits) if len(files) > 1 else None
    if whole is None and len(files) > 1:
        raise FormatError(
            f"{first} and the files of the other ranks contain flat parameters (LOCAL_STATE_DICT), which do "
            "not say how to join them",
            file=folder.path,
            hint="open one of the files, or save the model again with SHARDED_STATE_DICT or FULL_STATE_DICT",
        )
    return whole or opened(folder, first, limits)
