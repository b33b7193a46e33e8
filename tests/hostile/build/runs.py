"""Folders of runs: CheckpointManager's, whose manifests can say anything, and other frameworks'."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .torch_zips import torch_zip

STEP = "step-0000000007"


def manifest(files: Mapping[str, bytes], listed: Mapping[str, Any] | None = None, **changed: Any) -> bytes:
    """A manifest with a right checksum, which lists the files as objects, by their stems; or lists other facts of files."""
    facts = {name: {"bytes": len(raw), "crc32": f"{zlib.crc32(raw):08x}"} for name, raw in files.items()}
    content = {
        "format": "statedict checkpoint",
        "version": 1,
        "step": 7,
        "time": "2026-01-31T12:00:00+00:00",
        "metrics": {},
        "values": {},
        "objects": {name.removesuffix(".pt"): name for name in files},
        "files": facts if listed is None else listed,
        "shards": {},
        "keep": None,
        "versions": {},
        **changed,
    }
    return sealed(json.dumps(content, indent=1).encode().removesuffix(b"\n}"))


def sealed(content: bytes) -> bytes:
    return content + f',\n "crc32": "{zlib.crc32(content):08x}"\n}}\n'.encode()


def step(folder: Path, files: Mapping[str, bytes] | None = None, **changed: Any) -> Path:
    """A checkpoint of CheckpointManager in a run: its folder. `changed` are fields of the manifest."""
    content = {"model.pt": torch_zip()} if files is None else files
    path = folder / "run" / STEP
    path.mkdir(parents=True)
    for name, raw in content.items():
        (path / name).write_bytes(raw)
    (path / "manifest.json").write_bytes(manifest(content, **changed))
    return path


def marked(folder: Path, marker: bytes, name: str = "latest") -> Path:
    """A run of DeepSpeed or Megatron whose marker says anything, and a file outside of it."""
    path = folder / "run"
    (path / "global_step1").mkdir(parents=True)
    (path / "global_step1" / "model.pt").write_bytes(torch_zip())
    (path / name).write_bytes(marker)
    return path


def without_manifests(folder: Path, count: int) -> Path:
    path = folder / "run"
    for number in range(count):
        (path / f"step-{number:010d}").mkdir(parents=True)
    return path
