"""A directory as a checkpoint: which of the files in it is meant.

A directory of torch.distributed.checkpoint is told by its `.metadata`, or each rank's (`__0.metadata` …). Otherwise, the
first of these that there is: an index of shards, shards that are numbered, a single file of weights; and of several of a
kind those of safetensors, as transformers has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..errors import UnknownFormatError
from ._checkpoint import Checkpoint
from ._distributed import read_distributed
from ._limits import Limits
from ._shards import INDEX, NUMBERED, read_numbered
from ._table import METADATA, METADATA_OF_ALL

# By preference. A directory often has the same weights in several formats.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")

Pick = Callable[[Sequence[str]], list[str]]


def open_directory(folder: str, limits: Limits) -> Checkpoint:
    """The checkpoint that a directory holds; raises UnknownFormatError where it holds none, or several."""
    names = sorted(os.listdir(folder))
    distributed = [name for name in names if METADATA.fullmatch(name)]
    if distributed:
        return read_distributed(folder, [METADATA_OF_ALL] if METADATA_OF_ALL in distributed else distributed, limits)
    for pick in (_indexes, _numbered, _single):
        found = _preferred(pick(names))
        if pick is _numbered and found:
            return read_numbered(folder, found, limits)
        if len(found) == 1:
            from ._table import open as open_file

            return open_file(os.path.join(folder, found[0]), limits=limits)
        if found:
            raise UnknownFormatError(
                f"this directory holds several checkpoints: {', '.join(found[:5])}",
                file=folder,
                hint="open one of them",
            )
    raise UnknownFormatError("this directory holds no checkpoint", file=folder, hint="give the file inside it")


def _indexes(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(INDEX)]


def _numbered(names: Sequence[str]) -> list[str]:
    return [name for name in names if NUMBERED.fullmatch(name)]


def _single(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(WEIGHTS)]


def _preferred(names: Sequence[str]) -> list[str]:
    """Those of the first kind of weights that any of the names has."""
    for suffix in WEIGHTS:
        kind = [name for name in names if name.removesuffix(INDEX).endswith(suffix)]
        if kind:
            return kind
    return []
