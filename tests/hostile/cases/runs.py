"""Folders of runs: manifests and markers that lie, and files of a step that would run code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..build import pickles as p
from ..build import runs
from ..build.torch_zips import torch_zip
from ._case import Case, Gives

EVIL = torch_zip(p.pickled(p.state(w=p.tensor(), x=p.shell())))
GOOD = torch_zip()


def _case(name: str, gives: Gives, what: str, build: Any, **options: Any) -> Case:
    return Case(f"run_{name}", gives, what, build, **options, placed=True)


def _step(name: str, gives: Gives, what: str, files: dict[str, bytes] | None = None, **changed: Any) -> Case:
    return _case(name, gives, what, lambda folder: runs.step(folder, files, **changed))


def _raw(name: str, what: str, content: bytes) -> Case:
    """A step whose manifest is these bytes."""

    def build(folder: Path) -> Path:
        path = runs.step(folder)
        (path / "manifest.json").write_bytes(content)
        return path

    return _case(name, "error", what, build)


def _marker(name: str, what: str, content: bytes, file: str = "latest") -> Case:
    return _case(name, "error", what, lambda folder: runs.marked(folder, content, file))


def linked(folder: Path) -> Path:
    """A step whose object is a link to a file outside of the run, as the Hugging Face cache has them."""
    path = runs.step(folder)
    (folder / "blob").write_bytes((path / "model.pt").read_bytes())
    (path / "model.pt").unlink()
    (path / "model.pt").symlink_to(folder / "blob")
    return path


FACTS = {"bytes": len(GOOD), "crc32": "00000000"}
MANY = {f"o{n}": f"o{n}.pt" for n in range(2_000)}

CASES = [
    _step("good", "loads", "a step as the manager writes it"),
    _case("newest", "loads", "a run with this step", lambda folder: runs.step(folder).parent),
    _case("linked", "loads", "an object that is a link", linked),
    _case("wrong_facts", "loads", "another size and CRC-32 than listed: `verify` says so",
          lambda folder: runs.step(folder, listed={"model.pt": {"bytes": 1, "crc32": "00000000"}})),
    _step("executes", "unsafe", "an object that runs a command", {"model.pt": EVIL}),
    _step("values_execute", "unsafe", "values that run a command", {"model.pt": GOOD, "values.pt": EVIL}),
    _step("outside", "error", "an object outside of the folder", objects={"model": "../model.pt"}),
    _step("absolute", "error", "an object at an absolute path", objects={"model": "/etc/passwd"}),
    _step("device", "error", "a file named by a NUL", objects={"model": "model.pt\0"}),
    _step("unlisted", "error", "an object whose file is not listed", objects={"model": "other.pt"}),
    _step("one_file", "error", "two objects of one file", objects={"a": "model.pt", "b": "model.pt"}),
    _step("inside", "error", "an object inside another one", {"a.pt": GOOD, "b.pt": GOOD},
          objects={"a": "a.pt", "a/b": "b.pt"}),
    _step("deep_name", "error", "an object 5,000 levels deep", objects={"/".join("a" * 5000): "model.pt"}),
    _step("deep_values", "error", "values nested 60 deep", values={"v": json.loads("[" * 60 + "]" * 60)}),
    _step("negative_step", "error", "a negative step", step=-1),
    _step("no_time", "error", "a time that is not one", time="never"),
    _step("many_missing", "error", "2,000 objects whose files are missing", objects=MANY,
          listed=dict.fromkeys(MANY.values(), FACTS)),
    _raw("nested_manifest", "a manifest of 100,000 brackets",
         b'{\n "format": "statedict checkpoint", "a": ' + b"[" * 100_000),
    _raw("unsealed", "a manifest without its checksum", b'{\n "format": "statedict checkpoint", "version": 1}'),
    _raw("long_number", "a step of 100,000 digits",
         runs.sealed(b'{\n "format": "statedict checkpoint", "step": ' + b"9" * 100_000)),
    _case("no_manifests", "error", "1,000 steps without a manifest", lambda folder: runs.without_manifests(folder, 1000)),
    _marker("marker_outside", "a marker that names a folder outside", b"../run/global_step1"),
    _marker("marker_long", "a marker of 1 MB", b"x" * 1_000_000),
    _marker("marker_control", "a marker with control characters", b"\x1b[2J\xff\r\n"),
    _marker("marker_digits", "an iteration of 4,000 digits", b"9" * 4000, "latest_checkpointed_iteration.txt"),
]  # fmt: skip
