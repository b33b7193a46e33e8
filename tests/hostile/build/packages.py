"""Packages of torch.export (`.pt2`), and unpacked archives."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from .torch_zips import torch_zip
from .zips import FOUR, Member, archive

WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
Entries = Mapping[str, Any]


def tensor(path: str = "weight_0", *, is_param: bool = True, use_pickle: bool = False, **meta: Any) -> dict[str, Any]:
    """What a configuration says of a tensor: four float32 in `path`, unless `meta` says otherwise."""
    facts = {
        "dtype": 7,
        "sizes": [{"as_int": 4}],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": 1}],
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }
    return {"path_name": path, "is_param": is_param, "use_pickle": use_pickle, "tensor_meta": {**facts, **meta}}


def config(entries: Entries) -> bytes:
    return json.dumps({"config": dict(entries)}).encode()


def package(
    weights: Entries | bytes | None = None,
    constants: Entries | bytes | None = None,
    more: Mapping[str, bytes | None] | None = None,
    lies: Mapping[str, Mapping[str, Any]] | None = None,
) -> bytes:
    """A package with one weight "w", unless told otherwise; `more` members by name (None: without it), `lies` as in
    `torch_zip`."""
    weights = {"w": tensor()} if weights is None else weights
    members = {
        "data/weights/weight_0": FOUR,
        WEIGHTS: weights if isinstance(weights, bytes) else config(weights),
        CONSTANTS: constants if isinstance(constants, bytes) else config(constants or {}),
        "models/model.json": b"{}",
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        **(more or {}),
    }
    told = lies or {}
    kept = {name: data for name, data in members.items() if data is not None}
    return archive(*(Member(f"m/{name}".encode(), data, **told.get(name, {})) for name, data in kept.items()))


def flat(state_dict: bytes | None = None, **more: bytes) -> bytes:
    """A package of PyTorch before 2.8."""
    members = {
        "serialized_exported_program.json": b"{}",
        "serialized_state_dict.pt": torch_zip() if state_dict is None else state_dict,
        "version": b"7.1",
        **more,
    }
    return archive(*(Member(name.encode(), data) for name, data in members.items()))


def unpacked(folder: Path, raw: bytes | None = None, **changes: bytes | None) -> Path:
    """The folder that unpacking a file of torch.save gives; `changes` replace files by name, None removes one."""
    inside = folder / "model"
    with zipfile.ZipFile(BytesIO(torch_zip() if raw is None else raw)) as zipped:
        zipped.extractall(inside)
    for name, data in changes.items():
        path = inside / "archive" / name
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
    return inside
