"""Files that are right, however unusual: each must load."""

from __future__ import annotations

import struct
from pathlib import Path

from ..build import npz, scripts, shards
from ..build import pickles as p
from ..build.streams import legacy, tar
from ..build.tensors import entry, safetensors
from ..build.torch_zips import as_torch_writes, torch_zip, zip64_extra
from ..build.zips import FOUR, Member
from ._case import Case

BIG = struct.pack(">4f", 1, 2, 3, 4)
ONE = [1, 2, 3, 4]
UNCHECKED = {"both": {"crc": 0}}


def deflated_zip() -> bytes:
    return torch_zip(every={"method": 8})


def zip64_entry() -> bytes:
    sizes = {"csize": 0xFFFFFFFF, "usize": 0xFFFFFFFF, "extra": zip64_extra(16, 16)}
    return torch_zip(lies={"data/0": {"both": sizes}})


def shared() -> bytes:
    return as_torch_writes(p.state(a=p.tensor(), b=p.tensor(offset=2, size=(2,))))


def expanded() -> bytes:
    one = p.tensor(p.storage(numel=1), size=(4,), stride=(0,))
    return as_torch_writes(p.state(w=one), {"0": FOUR[:4]})


def crowded() -> bytes:
    return torch_zip(more=[Member(f"archive/empty/{n}".encode(), b"") for n in range(9000)])


def index(folder: Path) -> Path:
    return shards.write_all(folder / "model", shards.indexed()) / "model.safetensors.index.json"


def distributed(folder: Path) -> Path:
    return shards.write_all(folder / "saved", shards.distributed())


def unsorted() -> bytes:
    return safetensors({"b": entry(start=16, stop=32), "w": entry()}, FOUR * 2)


CASES = [
    Case("ok_zip", "loads", "plain torch.save layout", as_torch_writes),
    Case("ok_zip_nobyteorder_noalign", "loads", "torch 1.6-era", lambda: torch_zip(byteorder=None)),
    Case("ok_zip_descriptor", "loads", "data descriptors", lambda: torch_zip(every={"descriptor": True})),
    Case("ok_zip_crc_zero", "loads", "CRC 0 everywhere: not computed", lambda: torch_zip(every=UNCHECKED)),
    Case("ok_zip_deflated", "loads", "re-zipped with deflate", deflated_zip),
    Case("ok_zip64", "loads", "zip64 end record and locator", lambda: torch_zip(zip64=True)),
    Case("ok_zip64_entry", "loads", "zip64 extra with small true sizes", zip64_entry),
    Case("ok_zip_bigendian", "loads", "byteorder=big", lambda: torch_zip(byteorder=b"big", storages={"0": BIG})),
    Case("ok_legacy", "loads", "pre-1.6 stream", legacy),
    Case("ok_tar", "loads", "pre-0.1.13 tar", tar),
    Case("ok_shared_storage", "loads", "two views of one storage", shared, {"a": [1, 2, 3, 4], "b": [3, 4]}),
    Case("ok_expand_view", "loads", "stride 0", expanded, {"w": [1, 1, 1, 1]}),
    Case("ok_safetensors", "loads", "plain", safetensors),
    Case("ok_safetensors_unsorted", "loads", "header order is not data order", unsorted,
         {"b": [1, 2, 3, 4], "w": [1, 2, 3, 4]}),
    Case("ok_safetensors_padded", "loads", "spaces after the header",
         lambda: safetensors(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}     ')),
    Case("ok_safetensors_empty", "loads", "no tensors", lambda: safetensors({}, b""), {}),
    Case("ok_safetensors_zero_size", "loads", "a dimension of 0",
         lambda: safetensors({"w": entry(shape=[0, 3], stop=0)}, b""), {"w": []}),
    Case("ok_zip_many_entries", "loads", "9,000 empty members", crowded),
    Case("ok_torchscript", "loads", "torch.jit.save", scripts.script, {"w": ONE, "b": ONE, "child.w": ONE}),
    Case("ok_npz", "loads", "numpy.savez", npz.npz),
    Case("ok_npy", "loads", "numpy.save", npz.npy, None),
    Case("ok_index", "loads", "two shards and their index", index, {"a": ONE, "b": ONE, "c": ONE}, placed=True),
    Case("ok_distributed", "loads", "torch.distributed.checkpoint", distributed,
         {"w": [[1, 2, 3, 4], [5, 6, 7, 8]]}, placed=True),
]  # fmt: skip
