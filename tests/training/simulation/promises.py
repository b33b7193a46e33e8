"""The five sentences that must be true of a run, and what was promised so far.

They are checked here by a plain reading of the simulated disk or store, which shares no code with the library.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

from .process import Process

# Name in the run → the content of each file below it, by its path; a file itself has the path "".
Contents = dict[str, dict[str, bytes]]

STEP = re.compile(r"step-([0-9]{10})(?:-[0-9a-f]{16})?")
PINS = ".pins"
LOCKS = {".lock", ".run"}
MANIFEST = "manifest.json"

LOADABLE = "there is always a loadable checkpoint"
WHOLE = "a name is never half"
SHARED = "nothing shared is lost"
ONE_VERSION = "a reader sees one version"
BOUNDED = "space is bounded"


class BrokenError(Exception):
    """One of the five sentences was false."""

    def __init__(self, sentence: str, how: str) -> None:
        super().__init__(f"{sentence}: {how}")
        self.sentence = sentence


def require(condition: object, sentence: str, how: str) -> None:
    """Raise BrokenError unless the condition is true."""
    if not condition:
        raise BrokenError(sentence, how)


@dataclass
class Promises:
    """What callers were told, which no crash may take back.

    Attributes:
        keep: the newest checkpoints that no policy in use deletes.
        contents: step → the versions that it may have: that of the save that has returned last, and of those that run.
        saved: the steps of which a save has returned.
        pinned: the steps whose `pin` has returned.
        version: the newest version: a number that each save gets.
    """

    keep: int
    version: int = 0
    contents: dict[int, set[int]] = field(default_factory=dict)
    saved: set[int] = field(default_factory=set)
    pinned: set[int] = field(default_factory=set)
    _running: dict[int, Process] = field(default_factory=dict)
    # Version that is being saved → those that may have been written since that save began.
    _meanwhile: dict[int, set[int]] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """The newest step of which a save has returned; 0 if there is none."""
        return max(self.saved, default=0)

    def begin(self, step: int, writer: Process) -> int:
        """A save begins; return the version that it saves."""
        self.version += 1
        self._running[self.version] = writer
        self._meanwhile[self.version] = set()
        self.contents.setdefault(step, set()).add(self.version)
        return self.version

    def end(self, step: int, version: int, *, is_late: bool = False) -> None:
        """A save has returned. What was saved before, or by processes that have died since, must not come back.

        `is_late`: it ended some time ago, in the background, and a save that began after it may have replaced it since.
        """
        self.saved.add(step)
        del self._running[version]
        others = {
            other
            for other in self.contents[step]
            if other in self._running and (not self._running[other].is_dead or (is_late and other > version))
        }
        self.contents[step] = {version} | others | (self.contents[step] & self._meanwhile.pop(version))
        self._is_written(version)

    def fail(self, version: int, *, is_written: bool) -> None:
        """A save has raised an error. `is_written`: its version may be there, until another save of the step returns."""
        del self._running[version], self._meanwhile[version]
        if is_written:
            self._is_written(version)

    def _is_written(self, version: int) -> None:
        for written in self._meanwhile.values():
            written.add(version)

    def check_names(self, run: Contents) -> set[int]:
        """Check the checkpoints with a step's name; return the steps."""
        found = set()
        for name, files in run.items():
            require(not name.startswith("damaged-"), WHOLE, f"{name}: a checkpoint was found to be damaged")
            match = STEP.fullmatch(name)
            if match:
                step = int(match[1])
                version = version_of(name, files)
                possible = self.contents.get(step, set())
                require(version in possible, LOADABLE, f"step {step} has version {version}, and should have {possible}")
                found.add(step)
        return found

    def check_kept(self, steps: set[int]) -> None:
        """Check that no checkpoint is missing, after a new owner has tidied the run."""
        require(self.newest <= max(steps, default=0), LOADABLE, f"step {self.newest} was saved, and there are {steps}")
        for step in sorted({*self.saved, *steps})[-self.keep :]:
            require(step in steps, LOADABLE, f"step {step} was saved and must be kept, and there are {steps}")
        for step in self.pinned:
            require(step in steps, SHARED, f"step {step} is pinned, and there are {steps}")

    def check_space(self, run: Contents, keep: int) -> None:
        """Check that only what `last(keep)` and pins want is left, after a save in peace."""
        steps = {name for name in run if STEP.fullmatch(name)}
        others = {*run} - steps - LOCKS - {PINS}
        require(not others, BOUNDED, f"after a save there is still {sorted(others)}")
        most = keep + len(run.get(PINS, {}))
        require(
            len(steps) <= most, BOUNDED, f"{len(steps)} checkpoints, and at most {most} are wanted: {sorted(steps)}"
        )
        for name in steps:
            extra = sorted({*run[name]} - {MANIFEST, *_listed(run[name])})
            require(not extra, BOUNDED, f"{name} contains {extra}, which its manifest does not list")


def version_of(name: str, files: dict[str, bytes]) -> int:
    """The version in a checkpoint's manifest, after a check of everything that it lists."""
    require(MANIFEST in files, WHOLE, f"{name} has no manifest, only {sorted(files)}")
    try:
        manifest = json.loads(files[MANIFEST])
    except ValueError:
        raise BrokenError(WHOLE, f"the manifest of {name} is not JSON: {files[MANIFEST][:50]!r}") from None
    for file, facts in _listed(files).items():
        require(file in files, WHOLE, f"{name} has no {file}")
        content = files[file]
        require(len(content) == facts["bytes"], WHOLE, f"{name}/{file} has {len(content)} bytes, not {facts['bytes']}")
        require(f"{zlib.crc32(content):08x}" == facts["crc32"], WHOLE, f"{name}/{file} has other bytes")
    version: int = manifest["values"]["version"]
    return version


def _listed(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """The files that a manifest lists."""
    found: dict[str, dict[str, Any]] = json.loads(files.get(MANIFEST, b"{}")).get("files", {})
    return found
