"""Tensors that torch.distributed.checkpoint saved in parts: `HuggingFaceStorageWriter(save_distributed=True)`.

Without `save_distributed`, one process writes whole tensors, with the same metadata; only the names of its files differ.

Each rank writes a safetensors file of its own, whose metadata says under `DCP_SHARDING_INFO` where in the whole tensor
each of its tensors begins. No file says how large the whole tensor is: that takes all files (`many_files/_parts.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from statedict.state import Box, Leaf, Parts, Piece

from ...errors import FormatError
from .._json import read_json
from .._limits import Limits

SHARDING_INFO = "DCP_SHARDING_INFO"
OFFSETS = "saved_offsets"
ONE_RANK = "the file is one rank's part of a checkpoint: open the directory with the files of all ranks"
LARGEST = 2**63 - 1
OF_ONE_PROCESS = re.compile(r"model-\d{5,9}-of-\d{5,9}\.safetensors")


def is_whole(file: str, metadata: Mapping[str, str], limits: Limits) -> bool:
    """Return whether a file with `DCP_SHARDING_INFO` has the name that one process gives to its files, and whole tensors:
    all of them begin at 0.
    """
    if not OF_ONE_PROCESS.fullmatch(os.path.basename(file)):
        return False
    info = read_json(metadata[SHARDING_INFO].encode(), file, limits, SHARDING_INFO)
    entries = info.values() if isinstance(info, dict) else [None]
    offsets = [entry.get(OFFSETS) if isinstance(entry, dict) else None for entry in entries]
    return all(isinstance(each, list) and not any(each) for each in offsets)


def as_parts(state: Mapping[str, Leaf], metadata: Mapping[str, str], file: str, limits: Limits) -> dict[str, Parts]:
    """Return the tensors of a file with `DCP_SHARDING_INFO` as parts of larger tensors.

    Raises FormatError if the information is not complete.
    """
    info = read_json(metadata[SHARDING_INFO].encode(), file, limits, SHARDING_INFO)
    if not isinstance(info, dict) or info.keys() != state.keys():
        raise FormatError(f"its {SHARDING_INFO} does not list the tensors of the file", file=file)
    return {name: _part(name, leaf, info[name], file) for name, leaf in state.items()}


def _part(name: str, leaf: Leaf, entry: Any, file: str) -> Parts:
    offsets = entry.get(OFFSETS) if isinstance(entry, dict) else None
    sizes = leaf.spec.shape
    if not isinstance(offsets, list) or len(offsets) != len(sizes) or not all(map(_is_offset, offsets, sizes)):
        raise FormatError(f"its {OFFSETS} in {SHARDING_INFO} do not fit shape {list(sizes)}", file=file, member=name)
    reach = [at + size for at, size in zip(offsets, sizes)]
    piece = Piece(Box(tuple(offsets), sizes), leaf)
    where = f"{file}: {name}"
    return Parts(leaf.spec.dtype, reach, [piece], f"a part, at {offsets}", open_ended=True, where=where)


def _is_offset(value: Any, size: int) -> bool:
    return type(value) is int and 0 <= value <= LARGEST - size
