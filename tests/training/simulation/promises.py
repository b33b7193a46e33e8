"""The five sentences that must be true of a run, and what was promised so far.

They are checked here by a plain reading of the simulated disk, which shares no code with the library.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field

from .disk import Node
from .process import Process

STEP = re.compile(r"step-([0-9]{10})")
PINS = ".pins"
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

    @property
    def newest(self) -> int:
        """The newest step of which a save has returned; 0 if there is none."""
        return max(self.saved, default=0)

    def begin(self, step: int, writer: Process) -> int:
        """A save begins; return the version that it saves."""
        self.version += 1
        self._running[self.version] = writer
        self.contents.setdefault(step, set()).add(self.version)
        return self.version

    def end(self, step: int, version: int) -> None:
        """A save has returned. What was saved before, or by processes that have died since, must not come back."""
        self.saved.add(step)
        del self._running[version]
        others = {other for other in self.contents[step] if other in self._running and not self._running[other].is_dead}
        self.contents[step] = {version} | others

    def check_names(self, run: Node | None) -> set[int]:
        """Check the directories with a step's name; return the steps."""
        found = set()
        for name, node in ((run and run.entries) or {}).items():
            require(not name.startswith("damaged-"), WHOLE, f"{name}: a checkpoint was found to be damaged")
            match = STEP.fullmatch(name)
            if match:
                step = int(match[1])
                version = version_of(name, node)
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

    def check_space(self, run: Node, keep: int) -> None:
        """Check that only what `last(keep)` and pins want is left, after a save in peace."""
        entries = run.entries or {}
        steps = {int(match[1]) for match in map(STEP.fullmatch, entries) if match}
        others = {name for name in entries if not STEP.fullmatch(name)} - {".lock", PINS}
        require(not others, BOUNDED, f"after a save there is still {sorted(others)}")
        pins = entries[PINS].entries if PINS in entries else {}
        most = keep + len(pins or {})
        require(
            len(steps) <= most, BOUNDED, f"{len(steps)} checkpoints, and at most {most} are wanted: {sorted(steps)}"
        )
        for name in entries:
            if STEP.fullmatch(name):
                extra = sorted({*(entries[name].entries or {})} - {MANIFEST, *_listed(entries[name])})
                require(not extra, BOUNDED, f"{name} contains {extra}, which its manifest does not list")


def version_of(name: str, folder: Node) -> int:
    """The version in a checkpoint's manifest, after a check of everything that it lists."""
    entries = folder.entries
    require(entries is not None, WHOLE, f"{name} is a file")
    assert entries is not None
    require(MANIFEST in entries, WHOLE, f"{name} has no manifest, only {sorted(entries)}")
    try:
        manifest = json.loads(bytes(entries[MANIFEST].content))
    except ValueError:
        raise BrokenError(
            WHOLE, f"the manifest of {name} is not JSON: {bytes(entries[MANIFEST].content)[:50]!r}"
        ) from None
    for file, facts in manifest["files"].items():
        require(file in entries, WHOLE, f"{name} has no {file}")
        content = entries[file].content
        require(len(content) == facts["bytes"], WHOLE, f"{name}/{file} has {len(content)} bytes, not {facts['bytes']}")
        require(f"{zlib.crc32(content):08x}" == facts["crc32"], WHOLE, f"{name}/{file} has other bytes")
    version: int = manifest["values"]["version"]
    return version


def _listed(folder: Node) -> list[str]:
    entries = folder.entries or {}
    return list(json.loads(bytes(entries[MANIFEST].content))["files"])
