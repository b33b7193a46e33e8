"""Good files that something happened to, and things that are no checkpoints at all."""

from __future__ import annotations

import gzip
import os
import random
import struct
from pathlib import Path

from ..build import pickles as p
from ..build.streams import PLACE, legacy
from ..build.tensors import entry, safetensors
from ..build.torch_zips import as_torch_writes
from ._case import Case, Gives

FIRST = struct.pack("<64f", *range(64))
SECOND = struct.pack("<64f", *range(64, 128))
ROWS = {"a": list(range(64)), "b": list(range(64, 128))}


def good_zip() -> bytes:
    place = [p.storage(key, 64) for key in ("0", "1")]
    state = p.state(a=p.tensor(place[0], size=(64,)), b=p.tensor(place[1], size=(64,)))
    return as_torch_writes(state, {"0": FIRST, "1": SECOND})


def good_legacy() -> bytes:
    place = PLACE.replace(p.integer(4) + p.NONE, p.integer(64) + p.NONE)
    return legacy(p.state(a=p.tensor(place, size=(64,))), struct.pack("<q", 64) + FIRST)


def good_safetensors() -> bytes:
    return safetensors({"a": entry(shape=[64], stop=256), "b": entry(shape=[64], start=256, stop=512)}, FIRST + SECOND)


def flipped(good: bytes) -> bytes:
    """One bit of the tensor's bytes flipped."""
    at = good.index(FIRST) + 77
    return good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :]


def zeroed(good: bytes, kept: int) -> bytes:
    return good[:kept] + bytes(len(good) - kept)


def half(good: bytes) -> bytes:
    return good[: len(good) // 2]


def swapped() -> bytes:
    good = good_zip()
    return good.replace(FIRST, b"?" * 256).replace(SECOND, FIRST).replace(b"?" * 256, SECOND)


def fifo(folder: Path) -> Path:
    path = folder / "fifo.pt"
    os.mkfifo(path)
    return path


def endless(folder: Path) -> Path:
    path = folder / "zero.pt"
    path.symlink_to("/dev/zero")
    return path


def empty_folder(folder: Path) -> Path:
    path = folder / "folder.pt"
    path.mkdir()
    return path


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n"


def _case(name: str, what: str, build: object, gives: Gives = "error", values: object = None) -> Case:
    return Case(name, gives, what, build, values)


DAMAGED = [
    _case("flip_data_zip", "a bit flipped in a .pt", lambda: flipped(good_zip()), "detected"),
    _case("flip_data_legacy", "the same, legacy: no checksum", lambda: flipped(good_legacy()), "either"),
    _case("flip_data_safetensors", "the same, safetensors", lambda: flipped(good_safetensors()), "either"),
    _case("zero_tail_zip", "the last 40 % zeroed", lambda: zeroed(good_zip(), len(good_zip()) * 6 // 10)),
    _case("zero_data_safetensors", "all data zero",
          lambda: zeroed(good_safetensors(), len(good_safetensors()) - 512), "either"),
    _case("trunc_half_zip", "half the file", lambda: half(good_zip())),
    _case("trunc_cd_zip", "no end record", lambda: good_zip()[:-22]),
    _case("trunc_legacy", "cut in tensor data", lambda: good_legacy()[:-100]),
    _case("trunc_half_safetensors", "half the file", lambda: half(good_safetensors())),
    _case("swap_blocks_zip", "two storages swapped", swapped, "detected"),
]  # fmt: skip

STRANGE = [
    _case("empty_file_pt", "0 bytes", bytes),
    _case("lfs_pointer", "a Git LFS pointer", lambda: LFS),
    _case("html_page", "an HTML page", lambda: HTML),
    _case("gzip_wrapped", "gzip of a good file", lambda: gzip.compress(good_zip(), mtime=0)),
    _case("random_bytes", "64 KiB of noise", lambda: random.Random(4).randbytes(65536)),
    _case("pk_then_noise", "PK, then noise", lambda: b"PK\3\4" + random.Random(4).randbytes(65536)),
    Case("special_fifo", "error", "a FIFO", fifo, placed=True),
    Case("special_devzero", "error", "a link to /dev/zero", endless, placed=True),
    Case("special_dir", "error", "a directory", empty_folder, placed=True),
]

# What the message of a file that is no checkpoint must say.
TOLD = {
    "empty_file_pt": "empty",
    "lfs_pointer": "Git LFS",
    "html_page": "HTML",
    "gzip_wrapped": "gzip",
    "special_fifo": "regular file",
    "special_devzero": "regular file",
}

CASES = DAMAGED + STRANGE
