"""Checkpoints whose tensors are divided among the safetensors files of several ranks.

`torch.distributed.checkpoint.HuggingFaceStorageWriter(save_distributed=True)` writes one file for each rank, with its part
of each tensor (`safetensors/_parts.py`): `shard-00001-model-00001-of-00001.safetensors` and so on. A tensor is as large as
its parts reach together, as in PyTorch's own reader.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from statedict.state import Leaf, Parts, join_pieces

from ...errors import FormatError, PartError
from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..safetensors._parts import ONE_RANK
from ._open_files import OpenFiles
from ._shards import joined, opened_shards, state_of

OF_A_RANK = re.compile(r"shard-(?P<rank>\d{5,9})-.+\.safetensors")


def read_parts(folder: str, names: Sequence[str], limits: Limits) -> Checkpoint:
    """Open the Checkpoint that the files of all ranks form; a tensor of which a part is missing raises PartError if read."""
    open_files = OpenFiles(folder)
    try:
        shards = opened_shards(open_files.reopening, sorted(names), folder, limits)
        found: dict[str, dict[Any, Parts]] = {}
        for shard in shards.values():
            shard.notes = [note for note in shard.notes if note != ONE_RANK]
            for name, value in state_of(shard).items():
                if not isinstance(value, Parts):
                    raise FormatError(
                        "it does not say where in the whole tensor it belongs", file=shard.path, member=name
                    )
                (piece,) = value.pieces
                # Several ranks may have saved the same part, as PyTorch's reader permits.
                found.setdefault(name, {}).setdefault(piece.box, value)
        state = OrderedDict((name, _joined(name, list(parts.values()), folder)) for name, parts in found.items())
    except BaseException:
        open_files.close()
        raise
    notes = [f"the tensors are joined from the files of {len(shards):,} ranks", *_missing(names)]
    incomplete = [name for name, value in state.items() if isinstance(value, Parts)]
    problems = [Finding("error", name, "parts of this tensor are missing") for name in incomplete]
    return joined(folder, state, shards, 0, {}, notes, open_files.close, problems)


def _joined(name: str, parts: Sequence[Parts], folder: str) -> Leaf:
    if len({(part.spec.dtype, len(part.spec.shape)) for part in parts}) > 1:
        raise FormatError("its parts differ in dtype or number of dimensions", file=folder, member=name)
    dtype, pieces = parts[0].spec.dtype, [piece for part in parts for piece in part.pieces]
    shape = tuple(map(max, zip(*(part.spec.shape for part in parts))))
    try:
        return join_pieces(dtype, shape, pieces)
    except PartError:
        where = f"{folder}: {name}"
        return Parts(dtype, shape, pieces, f"{len(pieces)} parts with gaps", open_ended=True, where=where)


def _missing(names: Sequence[str]) -> list[str]:
    """Return a note if the files of some ranks, which are numbered from 1, are missing."""
    ranks = {int(match["rank"]) for name in names if (match := OF_A_RANK.fullmatch(name))}
    gaps = sorted(set(range(1, max(ranks) + 1)) - ranks)
    if not gaps:
        return []
    return [
        f"there is no file of rank {', '.join(map(str, gaps[:8]))}, of at least {max(ranks):,} (a rank may have had no part)"
    ]
