"""Open a directory as a checkpoint: choose which of its files to read.

A directory of torch.distributed.checkpoint is recognised by its `.metadata`, or that of each rank (`__0.metadata` …), or by
the safetensors files of its ranks (`shard-00001-model-….safetensors`).
Otherwise the first of these is used: an index of shards, numbered shards, a single weights file. Among several, files
with a name that frameworks give to a model's weights come first, then safetensors, as in transformers. A file whose
name marks it as a variant (`x.fp16.safetensors`) is used only if the plain one is missing. Files that were not used are
noted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ...errors import UnknownFormatError
from .._limits import Limits
from .._table import METADATA, METADATA_OF_ALL
from ..checkpoint._checkpoint import Checkpoint
from ._distributed import read_distributed
from ._parts import OF_A_RANK, rank_files, read_parts, read_ranks
from ._shards import INDEX, NUMBERED, read_numbered

# In order of preference. A directory often has the same weights in several formats.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")
# Names that transformers, peft and diffusers give to a model's weights, with one of the first two suffixes.
KNOWN = {
    name + suffix
    for name in ("model", "pytorch_model", "adapter_model", "diffusion_pytorch_model")
    for suffix in WEIGHTS[:2]
}
SHOWN = 5

Pick = Callable[[Sequence[str]], list[str]]


def open_directory(folder: str, limits: Limits) -> Checkpoint:
    """Open the checkpoint in a directory; raise UnknownFormatError if it contains none or several."""
    names = sorted(os.listdir(folder))
    distributed = [name for name in names if METADATA.fullmatch(name)]
    if distributed:
        return read_distributed(folder, [METADATA_OF_ALL] if METADATA_OF_ALL in distributed else distributed, limits)
    parts = [name for name in names if OF_A_RANK.fullmatch(name)]
    if parts:
        return read_parts(folder, parts, limits)
    for pick in (_indexes, _numbered, _single):
        found = _preferred(pick(names))
        if pick is _numbered and found:
            return read_numbered(folder, found, limits)
        if len(found) == 1:
            from .._table import open as open_file

            checkpoint = open_file(os.path.join(folder, found[0]), limits=limits)
            checkpoint.notes += _passed_over(names, found[0])
            return checkpoint
        if found:
            ranks = rank_files(found) if pick is _single else {}
            whole = read_ranks(folder, ranks, limits) if ranks else None
            if whole is not None:
                return whole
            raise UnknownFormatError(
                f"this directory contains several checkpoints: {_listed(found)}", file=folder, hint="open one of them"
            )
    raise UnknownFormatError(
        "this directory does not contain a checkpoint", file=folder, hint="pass the path of a file in it"
    )


def _indexes(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(INDEX)]


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the numbered shards, without those left over by a save of the whole file or by an unfinished save."""
    found = ((name, NUMBERED.fullmatch(name)) for name in names)
    return [name for name, shard in found if shard and shard["stem"] + shard["suffix"] not in names]


def _single(names: Sequence[str]) -> list[str]:
    return [
        name
        for name in names
        if name.endswith(WEIGHTS) and not NUMBERED.fullmatch(name) and not _is_variant(name, names)
    ]


def _is_variant(name: str, names: Sequence[str]) -> bool:
    """Return whether a name is that of another file plus a word before the suffix: `x.fp16.safetensors` next to
    `x.safetensors`.
    """
    stem, suffix = os.path.splitext(name)
    return os.path.splitext(stem)[0] + suffix in names and "." in stem.strip(".")


def _preferred(names: Sequence[str]) -> list[str]:
    """Return the files with a known name, or else all; of these, the first suffix in WEIGHTS that occurs."""
    files = {name: name.removesuffix(INDEX) for name in names}
    known = [name for name in names if files[name] in KNOWN] or names
    for suffix in WEIGHTS:
        kind = [name for name in known if files[name].endswith(suffix)]
        if kind:
            return kind
    return []


def _passed_over(names: Sequence[str], chosen: str) -> list[str]:
    """Return a note about the other files of the directory that may contain state, if there are any."""
    others = [name for name in (*_indexes(names), *_single(names)) if name != chosen]
    return [f"{chosen} was read; other files of this directory were not: {_listed(others)}"] if others else []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
