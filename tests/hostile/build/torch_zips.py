"""Torch zips: the members that torch.save writes, each of which can be replaced, left out, or joined by others."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from . import pickles as p
from .zips import FOUR, Member, archive

Lies = Mapping[str, Any]
W = p.state(w=p.tensor())


def torch_zip(
    pickle: bytes = W,
    storages: Mapping[str, bytes] | None = None,
    *,
    more: Sequence[Member] = (),
    first: Sequence[Member] = (),
    byteorder: bytes | None = b"little",
    version: bytes | None = b"3\n",
    folder: str = "archive",
    lies: Mapping[str, Lies] | None = None,
    every: Lies | None = None,
    **layout: Any,
) -> bytes:
    """A torch zip of `pickle` and `storages` (storage "0": four float32, unless told otherwise).

    `lies` gives further Member arguments by the member's name in the folder, `every` to all; `layout` goes to `archive`.
    """
    parts = {"data.pkl": pickle, "byteorder": byteorder}
    parts |= {f"data/{key}": raw for key, raw in ({"0": FOUR} if storages is None else storages).items()}
    parts |= {"version": version}
    told = lies or {}
    members = [
        Member(f"{folder}/{name}".encode(), data, **{**(every or {}), **told.get(name, {})})
        for name, data in parts.items()
        if data is not None
    ]
    return archive(*first, *members, *more, **layout)


def member(name: str, data: bytes, **lies: Any) -> Member:
    """One more member in the archive's folder."""
    return Member(f"archive/{name}".encode(), data, **lies)


def as_torch_writes(pickle: bytes = W, storages: Mapping[str, bytes] | None = None) -> bytes:
    """With descriptors, alignment and the zip64 end record."""
    return torch_zip(
        pickle, storages, every={"descriptor": True}, align=64, zip64=True,
        more=[member(".data/serialization_id", b"0" * 40, descriptor=True)],
    )  # fmt: skip


def zip64_extra(*sizes: int) -> bytes:
    return struct.pack(f"<HH{len(sizes)}Q", 1, 8 * len(sizes), *sizes)
