"""The manifest of a checkpoint: what it contains and how to verify it. Written last, so it vouches for the other files.

`manifest.json` lists the files next to it, and is readable for people too:

    {"format": "statedict checkpoint", "version": 1, "step": 1200, "time": "2026-01-31T12:00:00+00:00",
     "metrics": {"val_loss": 0.31}, "values": {"epoch": 3},
     "objects": {"model": "model.pt", "optimizer": "optimizer.pt"},
     "files": {"model.pt": {"bytes": 1048576, "crc32": "9ae0daaf"}, ...},
     "keep": ["last", 3],
     "versions": {"statedict": "0.1", "python": "3.11.7", "torch": "2.13.0"},
     "crc32": "5c0e0a3f"}

Its last line is the CRC-32 of all preceding bytes, so that damage to the manifest itself is detected.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from statedict import files
from statedict.files import File, Folder

from ...errors import ChecksumError, FormatError, SaveError, TruncatedError, UnknownFormatError
from .._json import parse_json
from .._run_names import FORMAT, MANIFEST, own_steps
from ._json_values import from_json, to_json

VERSION = 1
# Bytes. A manifest lists some hundred files at most, so a larger file is not a manifest.
LARGEST = 64 << 20
# Most manifests are smaller. Python allocates what is asked for: 64 MB take three times as long as the rest of reading one.
USUAL = 64 << 10
ENCODE = json.JSONEncoder(allow_nan=False).encode
# The end of a manifest, its own checksum. Matched exactly, so that a change to any of these bytes is detected.
SEAL = re.compile(rb',\n "crc32": "([0-9a-f]{8})"\n}\n\Z')


class NewerVersionError(UnknownFormatError):
    """The manifest was written by a newer version of this library; it is not damaged."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file of a checkpoint: its size in bytes and its CRC-32."""

    nbytes: int
    crc32: int

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """The facts of a file on disk."""
        file = files.open(path)
        try:
            return cls.of_open(file)
        finally:
            file.close()

    @classmethod
    def of_open(cls, file: File) -> FileFacts:
        """The facts of an open file."""
        return cls(file.size, files.checksums(file, [(0, file.size)])[0])


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a checkpoint directory.

    Attributes:
        step, time, metrics: as given to `save`; the time is when it was saved (UTC).
        values: the plain values given to `save`.
        objects: object name → the file (or directory) of its state.
        files: every file but the manifest, by path relative to the checkpoint, with `/`.
        versions: the versions of Python and the packages that wrote it.
        shards: object name → shard file → digest of its content, for shards that later checkpoints may share.
        keep: the run's retention policy as JSON values; None if it is a function of the caller's.
    """

    step: int
    time: datetime
    metrics: Mapping[str, Any]
    values: Mapping[str, Any]
    objects: Mapping[str, str]
    files: Mapping[str, FileFacts]
    versions: Mapping[str, str]
    shards: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    keep: list[Any] | None = None

    @property
    def nbytes(self) -> int:
        return sum(facts.nbytes for facts in self.files.values())

    def nbytes_of(self, file: str) -> int:
        """The size of an object's file, or of all files in its directory."""
        inside = (facts.nbytes for name, facts in self.files.items() if name == file or name.startswith(f"{file}/"))
        return sum(inside)

    def without_files(self) -> list[str]:
        """The objects whose file (or directory) is not listed in `files`; empty for a complete checkpoint."""
        there = {*self.files, *(name.partition("/")[0] for name in self.files if "/" in name)}
        return [name for name, file in self.objects.items() if file not in there]


def dump(manifest: Manifest) -> bytes:
    """The manifest as JSON that ends in its own checksum. Partner of `parse`.

    Raises TypeError for a value that JSON cannot represent, SaveError for a manifest that would be too large to read.
    """
    listed = {name: {"bytes": f.nbytes, "crc32": f"{f.crc32:08x}"} for name, f in manifest.files.items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "step": manifest.step,
        "time": manifest.time.isoformat(),
        "metrics": {name: to_json(value) for name, value in manifest.metrics.items()},
        "values": {name: to_json(value) for name, value in manifest.values.items()},
        "objects": dict(manifest.objects),
        "files": listed,
        "shards": {name: dict(digests) for name, digests in manifest.shards.items()},
        "keep": manifest.keep,
        "versions": dict(manifest.versions),
    }
    sealed = seal(lines(content))
    if len(sealed) > LARGEST:
        raise SaveError(
            f"the manifest would have {len(sealed):,} bytes, more than the limit of {LARGEST:,}; "
            "pass fewer objects and plain values, or combine them in one object"
        )
    return sealed


def seal(content: bytes) -> bytes:
    """Append the checksum and the closing brace to the JSON of a manifest."""
    return content + f',\n "crc32": "{files.crc32(content):08x}"\n}}\n'.encode()


def lines(content: Mapping[str, object]) -> bytes:
    """The JSON of a dict without the closing brace: a line for each entry, and for each entry of a dict in it."""
    return ("{\n" + ",\n".join(f' "{name}": {_entries(value)}' for name, value in content.items())).encode()


def _entries(value: object) -> str:
    # With `indent`, Python does not use its fast encoder.
    if not isinstance(value, dict) or not value:
        return ENCODE(value)
    return "{\n  " + ",\n  ".join(f"{ENCODE(name)}: {ENCODE(each)}" for name, each in value.items()) + "\n }"


def read(directory: Path) -> Manifest:
    """The manifest of a checkpoint directory; raises FormatError if it is missing, damaged or not a manifest."""
    path = directory / MANIFEST
    try:
        with path.open("rb") as stream:
            raw = stream.read(USUAL)
            if len(raw) == USUAL:
                raw += stream.read(LARGEST + 1 - USUAL)
    except FileNotFoundError as error:
        raise missing_manifest(str(path)) from error
    return parse(raw, str(path))


def read_open(folder: Folder) -> Manifest:
    """The manifest of an open folder; raises what `read` raises."""
    try:
        file = folder.file(MANIFEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_manifest(folder.path_of(MANIFEST)) from error
    return parse(file.read(0, min(file.size, LARGEST + 1)), file.name)


def check_step(manifest: Manifest, directory: str) -> None:
    """Raise FormatError if the path of a checkpoint's directory ends in the name of another step."""
    name = os.path.basename(os.path.normpath(directory))
    steps = own_steps([name])
    if steps and manifest.step not in steps:
        raise FormatError(
            f"the manifest is for step {manifest.step}, but the directory is named {name}", file=directory
        )


def check_file(folder: Folder, name: str, expected: FileFacts) -> None:
    """Read a file of a checkpoint and compare it with the manifest; raises FormatError, or OSError if it cannot be read."""
    path = folder.path_of(name)
    try:
        file = folder.file(name)
    except (FileNotFoundError, NotADirectoryError, UnknownFormatError) as error:
        raise missing_file(path) from error
    if file.size != expected.nbytes:
        raise TruncatedError(f"the file has {file.size:,} bytes, expected {expected.nbytes:,}", file=path)
    found = FileFacts.of_open(file)
    if found != expected:
        raise ChecksumError(
            f"the file is damaged: its CRC-32 is {found.crc32:08x}, expected {expected.crc32:08x}", file=path
        )


def missing_file(path: str) -> TruncatedError:
    return TruncatedError("the file is missing, but the manifest lists it", file=path)


def parse(raw: bytes, file: str) -> Manifest:
    """The manifest in the JSON text `raw`. Partner of `dump`. Raises FormatError naming `file` and what is wrong."""
    if not raw:
        raise TruncatedError("the manifest is empty", file=file)
    try:
        content = parse_json(raw[: LARGEST + 1])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the manifest is not valid JSON: {error}", file=file) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UnknownFormatError("this is not the manifest of a checkpoint", file=file)
    check_seal(raw, file)
    if content.get("version") != VERSION:
        raise NewerVersionError(
            f"manifest version {content.get('version')!r} is not supported; this statedict reads version {VERSION}",
            file=file,
            hint="upgrade statedict: a newer version wrote this checkpoint",
        )
    try:
        manifest = _manifest(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(f"a field of the manifest is missing or has the wrong type: {error!r}", file=file) from error
    if manifest.without_files():
        listed = ", ".join(map(repr, manifest.without_files()))
        raise FormatError(f"the manifest does not list the files of the objects {listed}", file=file)
    return manifest


def missing_manifest(file: str) -> UnknownFormatError:
    """The error for a checkpoint without a manifest."""
    return UnknownFormatError(
        "the manifest is missing: this directory is not a checkpoint, or it is incomplete", file=file
    )


def check_seal(raw: bytes, file: str, what: str = "manifest") -> None:
    """Raise ChecksumError unless the bytes end in their checksum, as `seal` has appended it; `what` describes them."""
    found = SEAL.search(raw)
    if found is None:
        raise ChecksumError(f"the {what} does not end with its checksum", file=file)
    actual = files.crc32(raw[: found.start()])
    if actual != int(found[1], 16):
        raise ChecksumError(
            f"the {what} is damaged: its CRC-32 is {actual:08x}, expected {found[1].decode()}", file=file
        )


def _manifest(content: dict[str, Any]) -> Manifest:
    step = content["step"]
    if type(step) is not int or step < 0:
        raise ValueError(f"invalid step {step!r}")
    listed = {
        _checked_path(name): FileFacts(int(f["bytes"]), int(f["crc32"], 16)) for name, f in content["files"].items()
    }
    return Manifest(
        step=step,
        time=datetime.fromisoformat(content["time"]),
        metrics={name: from_json(value) for name, value in content["metrics"].items()},
        values={name: from_json(value) for name, value in content["values"].items()},
        objects={str(name): _checked_path(file) for name, file in content["objects"].items()},
        files=listed,
        versions=dict(content["versions"]),
        keep=None if content["keep"] is None else list(content["keep"]),
        shards={name: {_checked_path(f): str(d) for f, d in s.items()} for name, s in content["shards"].items()},
    )


def _checked_path(name: str) -> str:
    """Return the path, after checking that it is relative and inside the checkpoint's directory, on any operating system."""
    if {"\\", ":", "\0"} & set(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"the path {name!r} is outside the checkpoint")
    return name
