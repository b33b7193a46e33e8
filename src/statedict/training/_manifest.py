"""The manifest of one checkpoint: what it holds and how to tell that it is whole. Written last, so it vouches for the rest.

`manifest.json` lies beside the files it lists, and is meant for people too:

    {"format": "statedict checkpoint", "version": 1, "step": 1200, "time": "2026-01-31T12:00:00+00:00",
     "metrics": {"val_loss": 0.31}, "values": {"epoch": 3},
     "objects": {"model": "model.pt", "optimizer": "optimizer.pt"},
     "files": {"model.pt": {"bytes": 1048576, "crc32": "9ae0daaf"}, ...},
     "keep": ["last", 3],
     "versions": {"statedict": "0.1", "python": "3.11.7", "torch": "2.13.0"},
     "crc32": "5c0e0a3f"}

Its last line is the CRC-32 of all the bytes before that line, so that damage to the manifest itself is found, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from statedict import files
from statedict.errors import ChecksumError, FormatError, SaveError, TruncatedError, UnknownFormatError

from . import _keep
from ._plain import from_json, to_json

NAME = "manifest.json"
FORMAT = "statedict checkpoint"
VERSION = 1
# A manifest lists a checkpoint's files, some hundred at most; more than this is not one.
LARGEST = 64 << 20
# The end of a manifest: its own checksum. Exactly these bytes, so that a change to any of them is found.
SEAL = re.compile(rb',\n "crc32": "([0-9a-f]{8})"\n}\n\Z')


class NewerVersionError(UnknownFormatError):
    """A newer version of this library wrote the manifest: that is not damage."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file of a checkpoint: its size in bytes and the CRC-32 of all of them."""

    nbytes: int
    crc32: int

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """The facts of a file as it lies on disk."""
        file = files.open(path)
        try:
            return cls(file.size, files.checksums(file, [(0, file.size)])[0])
        finally:
            file.close()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint directory holds.

    Attributes:
        step, time, metrics: see Saved.
        values: the plain values given to `save`.
        objects: object name → the file (or directory) of its state.
        files: every file but the manifest, by path relative to the checkpoint, with `/`.
        versions: of what wrote it.
        shards: object name → shard file → digest of its content, for shards that later checkpoints may share.
        keep: the run's rules of retention as `_keep.dump` writes them; None where they are somebody's own function.
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
        """What an object's file takes; a directory's, what all files in it do."""
        inside = (facts.nbytes for name, facts in self.files.items() if name == file or name.startswith(f"{file}/"))
        return sum(inside)

    def without_files(self) -> list[str]:
        """The objects whose file (or directory) is not among the files: a checkpoint that has any is not complete."""
        there = {*self.files, *(name.partition("/")[0] for name in self.files if "/" in name)}
        return [name for name, file in self.objects.items() if file not in there]


def dump(manifest: Manifest) -> bytes:
    """The manifest as JSON that ends in its own checksum; the partner of `parse`.

    Raises TypeError for a value that JSON cannot hold, SaveError for a manifest that would be too large to be read.
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
    sealed = seal(json.dumps(content, indent=1, allow_nan=False).encode().removesuffix(b"\n}"))
    if len(sealed) > LARGEST:
        raise SaveError(
            f"the manifest would have {len(sealed):,} bytes, and at most {LARGEST:,} are read again; "
            "give fewer names and plain values, or put them into one object"
        )
    return sealed


def seal(content: bytes) -> bytes:
    """The JSON of a manifest, without its last brace, ended by its checksum."""
    return content + f',\n "crc32": "{files.crc32(content):08x}"\n}}\n'.encode()


def read(directory: Path) -> Manifest:
    """The manifest of a checkpoint directory; raises FormatError where it is missing, damaged or not one."""
    path = directory / NAME
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise UnknownFormatError(
            "there is no manifest: this is no checkpoint, or not a whole one", file=str(path)
        ) from error
    return parse(raw, str(path))


def parse(raw: bytes, file: str) -> Manifest:
    """The manifest that JSON holds; the partner of `dump`. Raises FormatError naming `file` and what is wrong."""
    if not raw:
        raise TruncatedError("the manifest is empty", file=file)
    try:
        content = json.loads(raw[: LARGEST + 1])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the manifest is no valid JSON: {error}", file=file) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UnknownFormatError("this is not the manifest of a checkpoint", file=file)
    _check_seal(raw, file)
    if content.get("version") != VERSION:
        raise NewerVersionError(
            f"manifest version {content.get('version')!r} is not known here, only {VERSION}",
            file=file,
            hint="a newer version of this library wrote it",
        )
    try:
        manifest = _manifest(content)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"the manifest lacks a field, or one has another type: {error!r}", file=file) from error
    if manifest.without_files():
        listed = ", ".join(map(repr, manifest.without_files()))
        raise FormatError(f"the manifest lists objects without their files: {listed}", file=file)
    return manifest


def _check_seal(raw: bytes, file: str) -> None:
    found = SEAL.search(raw)
    if found is None:
        raise ChecksumError("the manifest does not end with its checksum", file=file)
    actual = files.crc32(raw[: found.start()])
    if actual != int(found[1], 16):
        raise ChecksumError(f"the manifest's CRC-32 is {actual:08x}, and {found[1].decode()} was written", file=file)


def _manifest(content: dict[str, Any]) -> Manifest:
    step = content["step"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step {step!r}")
    listed = {_inside(name): FileFacts(int(f["bytes"]), int(f["crc32"], 16)) for name, f in content["files"].items()}
    return Manifest(
        step=step,
        time=datetime.fromisoformat(content["time"]),
        metrics={name: from_json(value) for name, value in content["metrics"].items()},
        values={name: from_json(value) for name, value in content["values"].items()},
        objects={str(name): _inside(file) for name, file in content["objects"].items()},
        files=listed,
        versions=dict(content["versions"]),
        keep=_rule(content["keep"]),
        shards={name: {_inside(f): str(d) for f, d in s.items()} for name, s in content["shards"].items()},
    )


def _rule(written: Any) -> list[Any] | None:
    if written is None:
        return None
    return _keep.dump(_keep.parse(written))


def _inside(name: str) -> str:
    """A relative path that stays in the checkpoint's directory."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise ValueError(f"the path {name!r} leaves the checkpoint")
    return name
