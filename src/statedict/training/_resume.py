"""The newest checkpoint that verifies: every file its manifest lists is there, with the size and the CRC-32 it says.

Those that do not are passed over, newest first, with the reason; they are never deleted.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from statedict.errors import ChecksumError, FormatError, StateDictError, TruncatedError, printable

from . import _layout, _manifest
from ._manifest import FileFacts, Manifest


class PassedOver(NamedTuple):
    """A checkpoint that was not resumed from, and why.

    >>> from pathlib import Path
    >>> print(PassedOver(3, Path("run/3"), "it ends early"))
    step 3 (run/3): it ends early
    """

    step: int
    path: Path
    reason: str

    def __str__(self) -> str:
        return printable(f"step {self.step} ({self.path}): {self.reason}")


class Found(NamedTuple):
    """The checkpoint to resume from, and the newer ones that were passed over."""

    path: Path | None
    manifest: Manifest | None
    passed_over: list[PassedOver]


def newest(directory: Path) -> Found:
    """The newest checkpoint that verifies, if any. Reads every byte of it once."""
    passed_over: list[PassedOver] = []
    for step, path in sorted(_layout.steps(directory).items(), reverse=True):
        try:
            return Found(path, verify(path), passed_over)
        except (StateDictError, OSError) as error:
            passed_over.append(PassedOver(step, path, str(error)))
    return Found(None, None, passed_over)


def verify(path: Path) -> Manifest:
    """The manifest of a checkpoint, whose files were all checked against it; raises FormatError or OSError."""
    manifest = _manifest.read(path)
    if _layout.name_of(manifest.step) != path.name:
        raise FormatError(
            f"the manifest is of step {manifest.step}, and the directory is called {path.name}", file=str(path)
        )
    for name, expected in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise TruncatedError("the manifest lists this file, and it is not there", file=str(file))
        if file.stat().st_size != expected.nbytes:
            found = file.stat().st_size
            raise TruncatedError(f"{found:,} bytes of {expected.nbytes:,} are there", file=str(file))
        found_facts = FileFacts.of(file)
        if found_facts != expected:
            raise ChecksumError(
                f"its CRC-32 is {found_facts.crc32:08x}, and {expected.crc32:08x} was written", file=str(file)
            )
    return manifest
