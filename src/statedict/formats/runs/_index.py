"""`.run`, the index of a run in an object store: which folders are its checkpoints, which are pinned, and who saves there.

    {"format": "statedict run", "version": 1, "number": 17,
     "checkpoints": {"1200": "step-0000001200-5d41402abc4b2a76"}, "pinned": [1200],
     "holder": "process 4711 on node-3", "token": "9f86d081884c7d65",
     "crc32": "5c0e0a3f"}

A store cannot rename a folder. So each save has a folder with a name that is never used again, and the folder becomes a
checkpoint when the index names it. Other folders are saves that have not ended, or checkpoints that were deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from statedict.files import Folder

from ...errors import FileChangedError, FormatError
from .._json import parse_json
from .._run_names import INDEX, own_steps
from ._manifest import LARGEST, NewerVersionError, check_seal, lines, seal

FORMAT, VERSION = "statedict run", 1
# A run changes once in a save, and reading it takes a few requests, so the second attempt usually succeeds.
ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class RunIndex:
    """The content of `.run`.

    Attributes:
        folders: step → the folder of its checkpoint, oldest first.
        pinned: the steps that are pinned.
        holder: the process that saves here, as text; empty if its manager has released the run.
        token: which manager that is.
        number: increases with each change, so that no two versions are the same; 0 if the run has no index yet.
    """

    folders: Mapping[int, str] = field(default_factory=dict)
    pinned: frozenset[int] = frozenset()
    holder: str = ""
    token: str = ""
    number: int = 0

    def dump(self) -> bytes:
        """The index as JSON that ends in its own checksum. Partner of `parse_index`."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "number": self.number,
            "checkpoints": {str(step): folder for step, folder in sorted(self.folders.items())},
            "pinned": sorted(self.pinned),
            "holder": self.holder,
            "token": self.token,
        }
        return seal(lines(content))


def parse_index(raw: bytes, file: str) -> RunIndex:
    """The index in the JSON text `raw`. Partner of `RunIndex.dump`. Raises FormatError if it is damaged."""
    try:
        check_seal(raw, file, "index")
        content = parse_json(raw)
        if content["format"] != FORMAT:
            raise ValueError(f"the format is {content['format']!r}, not {FORMAT!r}")
        if content["version"] != VERSION:
            raise NewerVersionError(
                f"version {content['version']!r} of a run is not supported; this statedict reads version {VERSION}",
                file=file,
                hint="upgrade statedict: a newer version saves in this run",
            )
        return _index(content)
    except NewerVersionError:
        raise
    except (FormatError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(
            f"the index of the run is damaged: {error.reason if isinstance(error, FormatError) else repr(error)}",
            file=file,
            hint="restore an older version of this object; or delete it: the newest folder of each step is then taken for "
            "its checkpoint, and no step is pinned",
        ) from error


def read_index(folder: Folder) -> RunIndex:
    """The index of an open folder, as it is now.

    Raises FormatError if it is damaged, FileChangedError if it changes each time that it is read.
    """
    for _ in range(ATTEMPTS):
        folder.refresh()
        with suppress(FileChangedError):
            file = folder.file(INDEX)
            return parse_index(file.read(0, min(file.size, LARGEST)), file.name)
    raise always_changed(folder.path_of(INDEX))


def always_changed(file: str) -> FileChangedError:
    """The error for an index that has changed during each of the attempts to read it, or the manifests that it names."""
    return FileChangedError(
        file,
        f"during each of {ATTEMPTS} attempts: another process changes the run all the time, or the store gives a wrong ETag",
    )


def _index(content: Mapping[str, Any]) -> RunIndex:
    folders = {int(step): str(folder) for step, folder in content["checkpoints"].items()}
    for step, folder in folders.items():
        if step not in own_steps([folder]):
            raise ValueError(f"{folder!r} is not a folder of step {step}")
    number = content["number"]
    if type(number) is not int or number < 1:
        raise ValueError(f"invalid number {number!r}")
    return RunIndex(
        dict(sorted(folders.items())),
        frozenset(map(int, content["pinned"])),
        str(content["holder"]),
        str(content["token"]),
        number,
    )
