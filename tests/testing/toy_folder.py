"""A format of several files: an index in JSON with the names in each file, and files of the toy format."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from statedict.errors import FormatError
from statedict.files import Folder, is_plain_name
from statedict.formats import Checkpoint
from statedict.state import Absent, StateDict

from . import toy

INDEX = "index.json"


def written(state: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files: the first tensor is in one of its own."""
    names = list(state)
    parts = {"first.toy": names[:1], "second.toy": names[1:]}
    files = {file: toy.written({name: state[name] for name in part}, {}) for file, part in parts.items()}
    return {INDEX: json.dumps(parts).encode(), **files}


def opened(source: Any, faults: Collection[str] = ()) -> Checkpoint:
    """Open a path or a Folder."""
    folder = source if isinstance(source, Folder) else Folder(str(source))
    try:
        return _read(folder, faults)
    except FormatError as error:
        folder.close()
        raise error.located(file=folder.path_of(INDEX)) from None


def _read(folder: Folder, faults: Collection[str]) -> Checkpoint:
    try:
        index = folder.file(INDEX)
        parts = {file: list(names) for file, names in json.loads(index.read(0, index.size)).items()}
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise FormatError("the index is missing or damaged") from error
    leaves: dict[str, Any] = {}
    for file, names in parts.items():
        if not is_plain_name(file) and "follows names" not in faults:
            raise FormatError(f"{file!r} is not a plain name")
        try:
            part = dict(toy.opened(folder.file(file), faults).object.leaves())
            leaves |= {name: part[name] for name in names if name in part}
        except FileNotFoundError:
            if "needs every file" in faults:
                raise FormatError("this file is missing", file=folder.path_of(file)) from None
            if "skips missing files" not in faults:
                leaves |= {str(name): Absent(name, folder.path_of(file)) for name in names}
    form = "other" if "looks at names" in faults and folder.path.endswith(".pt") else "toy-folder"
    size = sum(folder.size(file) for file in folder.files)
    return Checkpoint(folder.path, form, StateDict(leaves), size=size, close=folder.close)
