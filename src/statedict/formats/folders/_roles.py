"""Folders with the weights of a model, and other state of the training in files of their own.

These are written by transformers' Trainer (`checkpoint-500/`), accelerate (`save_state`), skorch, and many scripts. The role
of a file is known by its name.
"""

from __future__ import annotations

from statedict.files import Folder

from .._limits import Limits
from .._table import ROLE, is_weights
from ..checkpoint._checkpoint import Checkpoint
from ..many_files._weights import read_weights
from ._fsdp import fsdp_members
from ._roots import MODEL, read_roots

# A file's stem → its root. Others keep their stem (`optimizer`, `scheduler`, `custom_checkpoint_0`). N is the rank.
ROOTS = {
    "pytorch_model_fsdp": MODEL,
    "optim": "optimizer",
    "lr_scheduler": "scheduler",
    "random_states": "rng",
    "rng_state": "rng",
}
KEEPS_NUMBER = ("custom_checkpoint",)


def read_roles(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a folder with files of known roles: the weights are at `model`, each other file at its own root."""
    roles = ((name, ROLE.fullmatch(name)) for name in folder.files)
    members = {role_of(name): name for name, match in roles if match and match["rank"] is None}
    weights = {MODEL: lambda: read_weights(folder, limits)} if is_weights(folder) else {}
    return read_roots(folder, "directory", {**weights, **fsdp_members(folder, limits), **members}, limits)


def role_of(name: str) -> str:
    """Return the root of a file, by its name.

    >>> role_of("optimizer.bin"), role_of("optimizer_1.bin"), role_of("random_states_0.pkl"), role_of("rng_state.pth")
    ('optimizer', 'optimizer_1', 'rng', 'rng')
    """
    match = ROLE.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a file with a known role")
    root, number = ROOTS.get(match["stem"], match["stem"]), match["number"]
    if match["stem"] in KEEPS_NUMBER:
        return f"{root}_{number}"
    return root if number is None or int(number) == 0 else f"{root}_{int(number)}"
