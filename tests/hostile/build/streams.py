"""The two formats before the zip: torch legacy (pickles, then raw storages, one after the other) and tar."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Mapping, Sequence

from . import pickles as p
from .zips import FOUR

MAGIC = p.pickled(p.integer(0x1950A86A20F9469CFC6C))
PROTOCOL = p.pickled(p.integer(1001))
SIZES = {"short": 2, "int": 4, "long": 4}
SYSTEM = p.pickled(
    p.dict_(
        (p.text("protocol_version"), p.integer(1001)),
        (p.text("little_endian"), p.TRUE),
        (p.text("type_sizes"), p.dict_(*((p.text(k), p.integer(v)) for k, v in SIZES.items()))),
    )
)
KEYS = p.pickled(p.list_(p.text("0")))
PLACE = p.storage("0", 4, "FloatStorage", "cpu", p.NONE)


def legacy(
    pickle: bytes = p.state(w=p.tensor(PLACE)),
    blobs: bytes = struct.pack("<q", 4) + FOUR,
    *,
    magic: bytes = MAGIC,
    system: bytes = SYSTEM,
    keys: bytes = KEYS,
) -> bytes:
    """A torch legacy file; a blob is its length in elements (int64) and its bytes."""
    return magic + PROTOCOL + system + pickle + keys + blobs


def tar_storage(numel: int = 4, raw: bytes = FOUR, kind: bytes = p.name("torch", "FloatStorage")) -> bytes:
    return p.pickled(p.tuple_(p.integer(7), p.text("cpu"), kind)) + struct.pack("<q", numel) + raw


def tar_tensor(size: int = 4, stride: int = 1, offset: int = 0) -> bytes:
    key = p.pickled(p.tuple_(p.integer(9), p.integer(7), p.name("torch", "FloatTensor")))
    return key + struct.pack("<ii", 1, 0) + struct.pack("<qqq", size, stride, offset)


def tar(
    storages: bytes | tarfile.TarInfo | None = None,
    tensors: bytes | None = None,
    pickle: bytes = p.state(w=p.integer(9) + b"Q"),
    more: Mapping[str, bytes] | Sequence[tarfile.TarInfo] = (),
) -> bytes:
    """A tar checkpoint (torch ≤ 0.1) of one tensor "w"; a TarInfo in place of bytes is a link."""
    one = p.pickled(p.integer(1))
    storages = one + tar_storage() + p.pickled(b"]") if storages is None else storages
    parts = {"storages": storages, "tensors": one + tar_tensor() if tensors is None else tensors, "pickle": pickle}
    if isinstance(more, Mapping):
        parts |= more
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as out:
        for name, data in parts.items():
            if isinstance(data, tarfile.TarInfo):
                out.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return whole.getvalue()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info
