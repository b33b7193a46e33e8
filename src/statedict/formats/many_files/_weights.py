"""Open the weights in a folder: choose which of its files to read.

The first of these is used: an index of shards, numbered shards, a single weights file. Shards are passed over if the whole
file is there as well, or `model.safetensors`, which is what transformers loads then; diffusers loads the shards. Among
several, files with a name that frameworks give to a model's weights come first, then safetensors, as in transformers. A
file whose name marks it as a variant (`x.fp16.safetensors`) is used only if the plain one is missing. Files that were not
used are noted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from statedict.files import Folder
from statedict.state import few

from ...errors import UnknownFormatError
from .._folder_table import parts
from .._limits import Limits
from .._names import INDEX, OTHER_FILES, WEIGHTS
from .._table import read
from ..checkpoint._checkpoint import Checkpoint
from ._adapter import describe_adapter
from ._llama import FILE, read_llama
from ._parts import rank_files, read_ranks
from ._shards import NUMBERED, read_numbered

# Names that transformers, peft and diffusers give to a model's weights, with one of the first two suffixes.
KNOWN = {
    name + suffix
    for name in ("model", "pytorch_model", "adapter_model", "diffusion_pytorch_model")
    for suffix in WEIGHTS[:2]
}
# PEFT saves further adapters in folders beside the file of the first. Other folders are not searched: each is a listing.
ADAPTER = "adapter_config.json"
# If both are there, transformers loads this file before any shards, and diffusers the shards of files with this name.
WHOLE_FIRST, SHARDS_FIRST = "model.safetensors", "diffusion_pytorch_model."


def read_weights(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the weights in a folder; raise UnknownFormatError if it contains none, or several models. A note lists the
    folders with further adapters of PEFT.
    """
    checkpoint = _read_chosen(folder, limits)
    if ADAPTER in folder.files:
        describe_adapter(checkpoint, folder.file(ADAPTER), limits)
        others = parts(folder)
        if others:
            checkpoint.notes.append(f"other adapters, in folders of this directory, were not read: {few(others)}")
    return checkpoint


def unclear(folder: Folder) -> list[str]:
    """Return a note if a folder has weights, and the names do not say which are the model's; else an empty list."""
    names = [name for name in folder.files if name not in OTHER_FILES]
    picked = next(filter(None, (_preferred(pick(names)) for pick in (_indexes, _numbered, _single))), [])
    if len(picked) < 2 or any(map(NUMBERED.fullmatch, picked)):
        return []
    return [f"files of this directory were not read, because no name marks one as the model's: {few(picked)}"]


def _read_chosen(folder: Folder, limits: Limits) -> Checkpoint:
    names = [name for name in folder.files if name not in OTHER_FILES]
    for pick in (_indexes, _numbered, _single):
        found = _preferred(pick(names))
        if pick is _numbered and found:
            return read_numbered(folder, found, limits)
        if found and all(map(FILE.fullmatch, found)) and (whole := read_llama(folder, found, limits)):
            return whole
        if len(found) == 1:
            checkpoint = read(folder.file(found[0]), limits)
            checkpoint.notes += _passed_over(names, found[0])
            return checkpoint
        if found:
            ranks = rank_files(found) if pick is _single else {}
            whole = read_ranks(folder, ranks, limits) if ranks else None
            if whole is not None:
                return whole
            raise UnknownFormatError(
                f"this directory contains several checkpoints: {few(found)}",
                file=folder.path,
                hint="open one of them",
            )
    folders = [name for name in folder.folders if not name.startswith(".")]
    inside = f"the folders in it are {few(folders)}: pass the path of one" if folders else ""
    raise UnknownFormatError(
        "this directory does not contain a checkpoint", file=folder.path, hint=inside or "pass the path of a file in it"
    )


def _indexes(names: Sequence[str]) -> list[str]:
    """Return the indexes, without those left over by an earlier save."""
    found = filter(_is_index, names)
    return [
        name for name in found if name.startswith(SHARDS_FIRST) or not _is_left_over(name.removesuffix(INDEX), names)
    ]


def _numbered(names: Sequence[str]) -> list[str]:
    """Return the numbered shards, without those that a save of the whole file or an unfinished save left behind."""
    found = ((name, NUMBERED.fullmatch(name)) for name in names)
    return [name for name, shard in found if shard and not _is_left_over(shard["stem"] + shard["suffix"], names)]


def _is_index(name: str) -> bool:
    return name.endswith(INDEX)


def _is_left_over(whole: str, names: Sequence[str]) -> bool:
    """Return whether shards of the file `whole` are passed over, because a whole file is there as well."""
    return whole in names or WHOLE_FIRST in names


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
    others = [name for name in (*filter(_is_index, names), *_single(names)) if name != chosen]
    return [f"{chosen} was read; other files of this directory were not: {few(others)}"] if others else []
