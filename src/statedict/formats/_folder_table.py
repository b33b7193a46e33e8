"""The table of formats of folders, recognised by the names of the files and folders in them.

The first row that fits reads a folder. Rows for folders that contain what another row reads, and more, come first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

from statedict.files import Folder

from . import _run_names
from ._format import Format, function, head_of
from ._names import (
    DEEPSPEED,
    FLAT_PROGRAM,
    FSDP_FOLDER,
    INDEX,
    MEGATRON_RANK,
    METADATA,
    MODULES,
    OF_A_RANK,
    OTHER_FILES,
    PACKAGE,
    PIPELINE,
    RANK_OF_TORCH_CHECKPOINTING,
    ROLE,
    SB3,
    SHARDED,
    WEIGHTS,
)


def is_weights(folder: Folder) -> bool:
    """Return whether a folder has files of weights, or an index of them."""
    return any(name.endswith((*WEIGHTS, INDEX)) and name not in OTHER_FILES for name in folder.files)


def parts(folder: Folder) -> list[str]:
    """Return the names of the folders in a folder that have weights, and are not steps of a run or hidden."""
    names = [name for name in folder.folders if not (_run_names.STEP.fullmatch(name) or name.startswith("."))]
    folder.count_visits(len(names))
    return [name for name in names if is_weights(folder.folder(name))]


def folder_row(folder: Folder, rows: Iterable[Format] | None = None) -> Format | None:
    """Return the first of `rows` (None: the table) that matches a folder, or None."""
    return next((row for row in rows or FOLDERS if row.holds(folder)), None)


def _has_file(pattern: re.Pattern[str]) -> Callable[[Folder], bool]:
    return lambda folder: any(map(pattern.fullmatch, folder.files))


def _has_all(*names: str) -> Callable[[Folder], bool]:
    return lambda folder: {*names} <= {*folder.files}


def _has_role(folder: Folder) -> bool:
    if any(map(ROLE.fullmatch, folder.files)) or any(map(FSDP_FOLDER.fullmatch, folder.folders)):
        return True
    # Weights beside a folder of DeepSpeed.
    return _run_names.LATEST in folder.files and is_weights(folder)


def _is_megatron(folder: Folder) -> bool:
    # One of them may be missing.
    return len({"common.pt", "metadata.json", ".metadata"}.intersection(folder.files)) > 1


def _has_megatron_ranks(folder: Folder) -> bool:
    return any(map(MEGATRON_RANK.fullmatch, folder.folders)) or "model_optim_rng.pt" in folder.files


def _has_rank_files(folder: Folder) -> bool:
    # Without weights beside it, the folder `sharded` was left by a save that did not consolidate it.
    has = _has_file(OF_A_RANK)
    return has(folder) or (SHARDED in folder.folders and not is_weights(folder) and has(folder.folder(SHARDED)))


def _is_universal(folder: Folder) -> bool:
    return "zero" in folder.folders and any(map(DEEPSPEED.fullmatch, folder.files))


def _has_parts(folder: Folder) -> bool:
    return PIPELINE in folder.files or (MODULES in folder.files and bool(parts(folder)))


def _is_step(folder: Folder) -> bool:
    """Return whether a folder is a checkpoint of CheckpointManager, also if its manifest is damaged."""
    manifest = _run_names.MANIFEST
    if manifest not in folder.files:
        return False
    named = _run_names.OWN.fullmatch(os.path.basename(folder.path)) is not None
    return named or _run_names.FORMAT.encode() in head_of(folder.file(manifest))


def _is_run(folder: Folder) -> bool:
    return _run_names.is_run(folder.files, folder.folders)


def _is_torch_checkpointing(folder: Folder) -> bool:
    # The module is imported only for folders that have such files.
    names = [name for name in folder.files if name == "metadata.pkl" or RANK_OF_TORCH_CHECKPOINTING.fullmatch(name)]
    return bool(names) and bool(function("statedict.plugins.torch_checkpointing:holds")(folder))


def _is_unpacked(folder: Folder) -> bool:
    files = {*folder.files}
    if "data.pkl" not in files:
        return not files.isdisjoint((PACKAGE, FLAT_PROGRAM))
    # Data sets have files of this name, too.
    return not files.isdisjoint(("version", "byteorder")) or ("data" in folder.folders and not is_weights(folder))


def _only_folder(folder: Folder) -> str:
    """Return the name of the folder in a folder if there is only one, without hidden ones; else an empty text."""
    shown = [name for name in folder.folders if not name.startswith((".", "__"))]
    return shown[0] if len(shown) == 1 else ""


def _holds_unpacked(folder: Folder) -> bool:
    """Return whether a folder is an unpacked archive, or contains one and no other weights."""
    if _is_unpacked(folder):
        return True
    inside = _only_folder(folder)
    return bool(inside) and not is_weights(folder) and _is_unpacked(folder.folder(inside))


def unpacked_in(folder: Folder) -> Folder:
    """Return the folder of an unpacked archive: the given one, or the only one in it."""
    return folder if _is_unpacked(folder) else folder.folder(_only_folder(folder))


FOLDERS = (
    Format("step", ".runs._step:read_step", holds=_is_step),
    # Its files look like those with roles: `optimizer_0.pt`.
    Format(
        "torch-checkpointing", "statedict.plugins.torch_checkpointing:read_checkpoint", holds=_is_torch_checkpointing
    ),
    Format("directory", ".folders._roles:read_roles", holds=_has_role),
    Format("stable-baselines3", ".folders._archives:read_sb3", holds=lambda folder: SB3 in folder.files),
    Format("megatron", ".folders._megatron:read_torch_dist", holds=_is_megatron),
    Format("megatron-ranks", ".folders._megatron_ranks:read_megatron_ranks", holds=_has_megatron_ranks),
    Format("lightning", ".folders._lightning:read_lightning", holds=_has_all(".metadata", "meta.pt")),
    Format("distributed", ".many_files._distributed:read_distributed", holds=_has_file(METADATA)),
    Format("rank-files", ".many_files._parts:read_parts", holds=_has_rank_files),
    Format("unpacked", "._zip_table:read_unpacked", holds=_holds_unpacked),
    Format("deepspeed-universal", ".deepspeed._universal:read_universal", holds=_is_universal),
    Format("deepspeed", ".deepspeed._zero:read_zero", holds=_has_file(DEEPSPEED)),
    Format("submodels", ".folders._submodels:read_submodels", holds=_has_parts),
    Format("run", ".runs._newest:read_run", holds=_is_run),
    Format("weights", ".many_files._weights:read_weights", holds=is_weights),
)
