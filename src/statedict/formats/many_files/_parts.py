"""Open the files of several ranks, among which tensors are divided, as one checkpoint.

There are two kinds of such files:

- `shard-00001-model-00001-of-00001.safetensors` and so on, which `HuggingFaceStorageWriter(save_distributed=True)` of
  torch.distributed.checkpoint writes, one for each rank. A tensor is as large as its parts reach together, as in PyTorch's
  own reader.
- files of one format whose names differ in one number (`rank_0.pt`, `rank_1.pt`), if they contain DTensors: what each rank
  saved with torch.save. Values other than DTensors are those of the first file.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from statedict.files import Folder
from statedict.state import Parts

from ...errors import FormatError
from .._limits import Limits
from .._names import OF_A_RANK, SHARDED
from ..checkpoint._checkpoint import OF_ONE_RANK, Checkpoint, Finding
from ..checkpoint._walk import tensors
from ..safetensors._parts import ONE_RANK
from ._join_ranks import join_parts, join_ranks
from ._shards import joined, opened_shards, state_of


def read_parts(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint that the safetensors files of all ranks form, in the folder or in its `sharded` folder.

    A tensor of which a part is missing raises PartError if it is read.
    """
    if SHARDED in folder.folders and not any(map(OF_A_RANK.fullmatch, folder.files)):
        folder = folder.folder(SHARDED)
    names = list(filter(OF_A_RANK.fullmatch, folder.files))
    shards = opened_ranks(folder, names, limits)
    found: dict[str, list[Parts]] = {}
    for shard in shards.values():
        shard.notes = [note for note in shard.notes if note != ONE_RANK]
        for name, value in state_of(shard).items():
            if not isinstance(value, Parts):
                raise FormatError("it does not say where in the whole tensor it belongs", file=shard.path, member=name)
            found.setdefault(name, []).append(value)
    state = OrderedDict((name, join_parts(name, parts, folder.path)) for name, parts in found.items())
    ranks = [int(match["rank"]) for name in names if (match := OF_A_RANK.fullmatch(name))]
    return joined(
        folder.path, state, shards, 0, {}, _notes(len({*ranks}), ranks, 1), folder.close, _problems(state.items())
    )


def rank_files(names: Sequence[str]) -> dict[int, str]:
    """Return files whose names differ in one number only, by that number; an empty dict if they differ otherwise.

    >>> rank_files(["model_world_2_rank_1.pt", "model_world_2_rank_0.pt"])
    {0: 'model_world_2_rank_0.pt', 1: 'model_world_2_rank_1.pt'}
    """
    fields = [re.split(r"(\d{1,9})", name) for name in names]
    different = [set(column) for column in zip(*fields) if len(set(column)) > 1]
    if len(set(map(len, fields))) > 1 or len(different) != 1 or not all(map(str.isdigit, different[0])):
        return {}
    at = next(place for place, column in enumerate(zip(*fields)) if len(set(column)) > 1)
    return dict(sorted((int(field[at]), name) for field, name in zip(fields, names)))


def read_ranks(folder: Folder, files: dict[int, str], limits: Limits) -> Checkpoint | None:
    """Open the Checkpoint that the files of all ranks form (`rank_files`); None if they do not contain DTensors of
    different ranks."""
    names = list(files.values())
    # A folder may have thousands of numbered files without DTensors: one of them shows it.
    (one,) = opened_ranks(folder, names[:1], limits).values()
    if not _parts_by_path(one.object):
        return None
    shards = opened_ranks(folder, names, limits)
    every = [_parts_by_path(shard.object) for shard in shards.values()]
    # Files that all have the same boxes are not of different ranks: they may be of different steps.
    if not all(every) or len(set(map(_boxes_of, every))) == 1:
        return None
    for shard in shards.values():
        shard.notes = [note for note in shard.notes if OF_ONE_RANK not in note]
    tree = join_ranks([shard.object for shard in shards.values()], folder.path)
    notes = _notes(len(shards), list(files), min(files))
    checkpoint = joined(folder.path, {}, shards, 0, {}, notes, folder.close, _problems(tensors(tree)))
    checkpoint.object = tree
    return checkpoint


def opened_ranks(folder: Folder, names: Sequence[str], limits: Limits) -> dict[str, Checkpoint]:
    """Open the files of ranks. All must be readable: the shape of a tensor can follow from its parts in all of them."""
    shards, failed = opened_shards(folder.file, names, folder.path, limits)
    for error in failed.values():
        raise error
    return shards


def _parts_by_path(tree: object) -> dict[str, Parts]:
    return {path: value for path, value in tensors(tree) if isinstance(value, Parts)}


def _boxes_of(parts: dict[str, Parts]) -> tuple[object, ...]:
    return tuple(piece.box for part in parts.values() for piece in part.pieces)


def _problems(values: Iterable[tuple[str, object]]) -> list[Finding]:
    return [
        Finding("error", name, "parts of this tensor are missing") for name, value in values if isinstance(value, Parts)
    ]


def _notes(count: int, ranks: Sequence[int], first: int) -> list[str]:
    """Return notes on the files that were joined and the numbers that are missing."""
    gaps = sorted(set(range(first, max(ranks) + 1)) - set(ranks))
    listed = ", ".join(map(str, gaps[:8]))
    missing = [f"there is no file of rank {listed} (a rank may have had no part)"] if gaps else []
    whose = "the file of 1 rank" if count == 1 else f"the files of {count:,} ranks"
    return [f"the tensors are read from {whose}", *missing]
