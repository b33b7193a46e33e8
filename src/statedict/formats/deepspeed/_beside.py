"""Read a folder in which the weights are in a file of their own, beside a folder of DeepSpeed that `latest` names.

transformers' Trainer writes such folders (`checkpoint-500`, with `global_step500` in it). The fp32 weights and the optimizer
are DeepSpeed's; the file has the same weights in the dtype that they train with.
"""

from __future__ import annotations

from statedict.files import Folder

from ...errors import FormatError
from .._limits import Limits
from .._table import LATEST, read_folder
from ..checkpoint._checkpoint import Checkpoint

# In bytes; `latest` has the name of a folder.
LONGEST_NAME = 4096


def read_beside(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the checkpoint in the folder that `latest` names."""
    file = folder.file(LATEST)
    name = file.read(0, min(file.size, LONGEST_NAME)).decode(errors="replace").strip()
    if name not in folder.folders:
        raise FormatError(
            f"it names the folder {name[:200]!r}, which is missing",
            file=file.name,
            hint="open one of the folders, or the file of weights",
        )
    checkpoint = read_folder(folder.folder(name), limits)
    checkpoint.notes.append(f"{name} was read, not the file of weights in {folder.path}")
    return checkpoint
