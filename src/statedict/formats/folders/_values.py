"""Plain values beside the tensors of a folder, in files of JSON: the state of a trainer, the history of a run."""

from __future__ import annotations

from dataclasses import replace

from statedict.files import Folder

from .._json import read_json
from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint

# Python's parser is recursive.
DEEPEST = 100


def read_values(folder: Folder, name: str, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a file of JSON, in which NaN and infinity are numbers, as Python writes them."""
    file = folder.file(name)
    if file.size > limits.json_bytes:
        raise limits.exceeded("json_bytes", f"JSON of {file.size:,} bytes").located(file=file.name)
    deep = replace(limits, json_depth=max(limits.json_depth, DEEPEST))
    value = read_json(file.read(0, file.size), file.name, deep, constant=float)
    return Checkpoint(file.name, "json", value, size=file.size)
