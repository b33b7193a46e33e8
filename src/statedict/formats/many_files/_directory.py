"""A directory as a checkpoint: which of the files in it is meant.

A directory of torch.distributed.checkpoint is told by its `.metadata`, or each rank's (`__0.metadata` …). Otherwise, the
first of these that there is: an index of shards, shards that are numbered, a single file of weights. Of several of a kind
those with a name that frameworks give to a model's weights come first, then those of safetensors, as transformers has it. A
file whose name says that it is a variant (`x.fp16.safetensors`) gives way to the plain one. Files that are passed over are
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
from ._shards import INDEX, NUMBERED, read_numbered

# By preference. A directory often has the same weights in several formats.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")
# What transformers, peft and diffusers call a model's weights, with a suffix of the first two.
KNOWN = {
    name + suffix
    for name in ("model", "pytorch_model", "adapter_model", "diffusion_pytorch_model")
    for suffix in WEIGHTS[:2]
}
SHOWN = 5

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
            from .._table import open as open_file

            checkpoint = open_file(os.path.join(folder, found[0]), limits=limits)
            checkpoint.notes += _passed_over(names, found[0])
            return checkpoint
        if found:
            raise UnknownFormatError(
                f"this directory holds several checkpoints: {_listed(found)}", file=folder, hint="open one of them"
            )
    raise UnknownFormatError("this directory holds no checkpoint", file=folder, hint="give the file inside it")


def _indexes(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(INDEX)]


def _numbered(names: Sequence[str]) -> list[str]:
    """Shards, but for those that a save of the whole file has left over, or has not finished."""
    found = ((name, NUMBERED.fullmatch(name)) for name in names)
    return [name for name, shard in found if shard and shard["stem"] + shard["suffix"] not in names]


def _single(names: Sequence[str]) -> list[str]:
    return [
        name
        for name in names
        if name.endswith(WEIGHTS) and not NUMBERED.fullmatch(name) and not _is_variant(name, names)
    ]


def _is_variant(name: str, names: Sequence[str]) -> bool:
    """Whether a name is another file's with a word before the suffix, as `x.fp16.safetensors` is beside `x.safetensors`."""
    stem, suffix = os.path.splitext(name)
    return os.path.splitext(stem)[0] + suffix in names and "." in stem.strip(".")


def _preferred(names: Sequence[str]) -> list[str]:
    """Those with a known name, or else all; and of these the first kind of weights that any has."""
    files = {name: name.removesuffix(INDEX) for name in names}
    known = [name for name in names if files[name] in KNOWN] or names
    for suffix in WEIGHTS:
        kind = [name for name in known if files[name].endswith(suffix)]
        if kind:
            return kind
    return []


def _passed_over(names: Sequence[str], chosen: str) -> list[str]:
    """A note of the other files of the directory that may hold state, if there are any."""
    others = [name for name in (*_indexes(names), *_single(names)) if name != chosen]
    return [f"of this directory {chosen} is read, and not {_listed(others)}"] if others else []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
