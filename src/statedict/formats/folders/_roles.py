"""Folders with the weights of a model, and other state of the training in files of their own.

These are written by transformers' Trainer (`checkpoint-500/`), accelerate (`save_state`), skorch (`Checkpoint`), and many
scripts. The role of a file is known by its name. The rest of the folder is read as if these files were not there:
weights, shards, a distributed checkpoint, the newest of several steps …
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NoReturn

from statedict.files import Folder

from ...errors import FormatError
from .._folder_table import FOLDERS, folder_row, parts
from .._limits import Limits
from .._names import FSDP_FOLDER, ROLE, WEIGHTS
from .._run_names import LATEST
from .._table import read_row
from ..checkpoint._checkpoint import Checkpoint
from ..checkpoint._roots import is_state
from ..many_files._weights import unclear
from ._fsdp import fsdp_members
from ._opened import opened
from ._roots import MODEL, Member, numbered, read_roots
from ._values import read_name, read_values

DIRECTORY, RUN, WEIGHTS_ROW = "directory", "run", "weights"
# A file's stem → its root. Others keep their stem (`optimizer`, `scheduler`, `custom_checkpoint_0`). N is the rank.
ROOTS = {
    "pytorch_model_fsdp": MODEL,
    "optim": "optimizer",
    "lr_scheduler": "scheduler",
    "random_states": "rng",
    "rng_state": "rng",
    "dl_state_dict": "dataloader",
}
KEEPS_NUMBER = ("custom_checkpoint",)
# Weights of further models, which accelerate writes beside files with roles.
FURTHER = re.compile(r"(?:pytorch_)?model_(?P<number>[1-9]\d{0,8})\.(?:bin|safetensors)")
# The file of one rank, which FSDP's reader joins with the others.
RANK = re.compile(r"_rank\d+\.")
# The root of weights if another model has the name `model`.
SECOND = "weights"
# Plain values, as JSON: of transformers and of skorch.
VALUES = {
    "trainer_state.json": "trainer_state",
    "history.json": "history",
    "train_end_history.json": "train_end/history",
}


def read_roles(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a folder with files of known roles: the weights are at `model`, each other file at its root."""
    members: dict[str, Member] = dict(fsdp_members(folder, limits))
    roles = _roles(folder)
    step = _deepspeed(folder)
    taken = [name for name in (*folder.files, *folder.folders) if role_of(name) or FSDP_FOLDER.fullmatch(name)]
    rest = folder.without([*taken, LATEST, step])
    row = folder_row(rest, [row for row in FOLDERS if row.name not in (DIRECTORY, step and RUN)])
    notes = unclear(rest) if row is not None and row.name == WEIGHTS_ROW and step else []
    if notes:
        row = None  # such files do not take the place of the state that DeepSpeed saved
    if row is None or row.name != "submodels":
        inside = parts(rest)
        roles |= {name: name for name in inside}
        rest = rest.without(inside)
    core = partial(read_row, row, rest, limits) if row else partial(opened, folder, step, limits) if step else None
    if row is not None and step:
        roles[step] = step
    members |= {root: name for name, root in _distinct(roles, members).items()}
    members |= {VALUES[name]: partial(read_values, folder, name, limits) for name in VALUES if name in folder.files}
    return read_roots(folder, DIRECTORY, {**(_core(core, members) if core else {}), **members}, limits, notes=notes)


def _core(read: Callable[[], Checkpoint], others: Iterable[str]) -> dict[str, Member]:
    """Return the member for what is left of a folder: the model, or a tree, whose entries are put beside the other roots."""
    taken = {root.partition("/")[0] for root in others}
    root = MODEL if MODEL not in taken else SECOND
    try:
        checkpoint = read()
    except (FormatError, OSError) as error:
        # For `read_roots`, which reports it: reading again would double the cost of each level.
        return {root: partial(_fail, error)}
    tree = checkpoint.object
    is_tree = isinstance(tree, dict) and not is_state(tree) and taken.isdisjoint(tree)
    return {"" if is_tree else root: lambda: checkpoint}


def _fail(error: FormatError | OSError) -> NoReturn:
    raise error


def role_of(name: str) -> str | None:
    """Return the root of a file by its name, or None if it has no known role.

    >>> role_of("optimizer.bin"), role_of("optimizer_1.bin"), role_of("random_states_0.pkl"), role_of("rng_state.pth")
    ('optimizer', 'optimizer_1', 'rng', 'rng')
    >>> role_of("model_1.safetensors"), role_of("train_end_params.pt"), role_of("model.safetensors")
    ('model_1', 'train_end/model', None)
    """
    further = FURTHER.fullmatch(name)
    if further is not None:
        return numbered(MODEL, further["number"])
    match = ROLE.fullmatch(name)
    if match is None:
        return None
    stem, group = match["stem"] or MODEL, match["group"] or match["end"]
    root = numbered(ROOTS.get(stem, stem), match["number"], keep_zero=stem in KEEPS_NUMBER)
    return f"{group}/{root}" if group else root


def _roles(folder: Folder) -> dict[str, str]:
    """Return the root of each file with a known role that is not one of several ranks. Of a further model in two formats,
    the one preferred is taken.
    """
    found = {name: root for name in folder.files if (root := role_of(name)) and not RANK.search(name)}
    models = sorted(filter(FURTHER.fullmatch, found), key=lambda name: WEIGHTS.index(name[name.rindex(".") :]))
    kept = {found[name]: name for name in reversed(models)}
    return {name: root for name, root in found.items() if kept.get(root, name) == name}


def _deepspeed(folder: Folder) -> str:
    """Return the name of the folder with DeepSpeed's state, which transformers and accelerate put beside their own files;
    an empty text if there is none.
    """
    if LATEST not in folder.files:
        return ""
    name = read_name(folder, LATEST)
    return name if name in folder.folders else ""


def _distinct(roles: Mapping[str, str], others: Iterable[str]) -> dict[str, str]:
    """Return the root of each file; those of several files with the same root, or with one of `others`, are their names."""
    counts = Counter((*roles.values(), *others))
    return {name: root if counts[root] == 1 else name for name, root in roles.items()}
