"""Small files beside the tensors of a folder: JSON (the state of a trainer, the history of a run), and names as text."""

from __future__ import annotations

from dataclasses import replace

from statedict.files import Folder

from .._json import read_json_file
from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint

# Python's parser is recursive.
DEEPEST = 100
# In bytes. What is longer is not a name.
LONGEST_NAME = 4096


def read_values(folder: Folder, name: str, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a file of JSON, in which NaN and infinity are numbers, as Python writes them."""
    file = folder.file(name)
    deep = replace(limits, json_depth=max(limits.json_depth, DEEPEST))
    return Checkpoint(file.name, "json", read_json_file(file, deep, constant=float), size=file.size)


def read_name(folder: Folder, name: str) -> str:
    """Return the text of a file that contains only a name, a number or a version, such as DeepSpeed's `latest`."""
    file = folder.file(name)
    return file.read(0, min(file.size, LONGEST_NAME)).decode(errors="replace").strip()
