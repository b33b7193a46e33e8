"""Files that two readers would read differently: torch's, safetensors', NumPy's, tarfile's, C's pickle."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib

from ..build import npz, streams
from ..build import pickles as p
from ..build.safetensors_seal import sealed
from ..build.torch_zips import member, torch_zip
from ..build.zips import FOUR, Member, archive
from ._case import Case, Gives

OTHER = struct.pack("<4f", 666, 666, 666, 666)


def _case(name: str, what: str, build: object, gives: Gives = "error") -> Case:
    return Case(name, gives, what, build)


def marked(attributes: int) -> bytes:
    return torch_zip(lies={"data/0": {"central": {"attributes": attributes}}})


def second_name(place: str) -> bytes:
    path = b"\1" + struct.pack("<I", zlib.crc32(b"archive/data/0")) + b"archive/data/1"
    return torch_zip(lies={"data/0": {place: {"extra": struct.pack("<HH", 0x7075, len(path)) + path}}})


def tied_arrays(other: bytes = FOUR, crc: int | None = None) -> bytes:
    """An npz whose directory says that `v` is tied to `w`."""
    said = json.dumps({"tied": "w"}).encode()
    raw = npz.npy(data=other)
    fields = {} if crc is None else {"crc": crc}
    tied = Member(b"v.npy", raw, both=fields, central={"extra": struct.pack("<HH", 0x4453, len(said)) + said})
    return archive(Member(b"w.npy", npz.npy()), tied)


def tar_with(**fields: object) -> bytes:
    """The tar with fields of the header of its first member replaced."""
    raw = bytearray(streams.tar())
    for place, content in ((slice(345, 345 + 6), fields.get("prefix")), (slice(8, 10), fields.get("tail"))):
        if isinstance(content, bytes):
            raw[place] = content
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


def full_folder() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("folder")
        info.type, info.size = tarfile.DIRTYPE, 512
        tar.addfile(info, io.BytesIO(bytes(512)))
    return out.getvalue()


def value(*parts: bytes) -> bytes:
    return torch_zip(p.pickled(p.dict_((p.text("w"), p.tensor()), (p.text("x"), b"".join(parts)))))


ZIPS = [
    _case("two_byteorder", "BYTEORDER, which torch takes for byteorder",
          lambda: torch_zip(byteorder=None, more=[member("BYTEORDER", b"big")])),
    _case("two_version", "Version", lambda: torch_zip(more=[member(".Format_Version", b"9")])),
    _case("two_data", "DATA/1", lambda: torch_zip(more=[member("DATA/1", FOUR)])),
    _case("two_constants", "CONSTANTS.PKL", lambda: torch_zip(more=[member("CONSTANTS.PKL", FOUR)])),
    _case("two_data_version", ".data/version", lambda: torch_zip(more=[member(".data/version", b"9\n")])),
    _case("two_byteorder_line", "a byte order with a newline", lambda: torch_zip(byteorder=b"big\n")),
    Case("two_folder_case", "loads", "capitals in the folder's name", lambda: torch_zip(folder="Archive")),
    _case("two_marked_folder", "data/0 is marked as a folder", lambda: marked(0x10)),
    _case("two_marked_all", "data/0 has all attributes", lambda: marked(0xFFFFFFFF)),
    _case("two_marked_link", "data/0 is marked as a link", lambda: marked(0o120777 << 16)),
    Case("two_marked_file", "loads", "data/0 is marked as a file", lambda: marked(0o100644 << 16)),
    _case("two_path_central", "a second name in the directory", lambda: second_name("central")),
    _case("two_path_local", "a second name in the local header", lambda: second_name("local")),
    _case("two_encoding", "a name in no encoding",
          lambda: archive(Member("é.npy".encode(), npz.npy(), both={"flags": 0}))),
    _case("two_long_version", "a version of 60 MiB", lambda: torch_zip(version=b" " * (60 << 20) + b"3",
          lies={"version": {"method": 8}})),
]  # fmt: skip

LITERALS = [
    _case(f"two_literal_{number}", text.decode(), lambda text=text: value(text))
    for number, text in enumerate(
        (b"I010\n", b"I-010\n", b"I0x10\n", b"L0x10L\n", b"L010L\n", b"I08\n", b"I1_000\n", b"F1_0\n", b"F1e400\n")
    )
]

OTHERS = [
    Case("two_ties_right", "loads", "a name that is tied to a tensor", sealed),
    _case("two_ties", "a name that is tied to a tensor that is not there", lambda: sealed("u")),
    _case("two_ties_place", "a tied name at a place beyond the state", lambda: sealed(place=2)),
    Case("two_ties_npz_right", "loads", "tied arrays of equal bytes", tied_arrays),
    _case("two_ties_npz", "tied arrays of other bytes", lambda: tied_arrays(OTHER)),
    Case("two_ties_npz_forged", "detected", "the same with a checksum that says so",
         lambda: tied_arrays(OTHER, zlib.crc32(npz.npy()))),
    _case("two_surrogate", "half a character in safetensors' metadata",
          lambda: sealed(metadata={"note": "\ud800"})),
    _case("two_tar_prefix", "a name with a prefix", lambda: tar_with(prefix=b"prefix")),
    _case("two_tar_zero", "a name that goes on after a zero", lambda: tar_with(tail=b"\0x")),
    _case("two_tar_folder", "a folder with bytes", full_folder),
]  # fmt: skip

CASES = ZIPS + LITERALS + OTHERS
TOLD = {
    **dict.fromkeys(
        ("two_byteorder", "two_version", "two_data", "two_constants"), "only in case, and PyTorch ignores case"
    ),
    "two_data_version": "PyTorch reads the version here",
    "two_byteorder_line": "the byte order must be",
    **dict.fromkeys(("two_marked_folder", "two_marked_all", "two_marked_link"), "is marked as a directory or a link"),
    **dict.fromkeys(("two_path_central", "two_path_local"), "it has a second name"),
    "two_encoding": "its name is not marked as UTF-8",
    "two_long_version": "expected a word or a number",
    **dict.fromkeys(("two_ties", "two_ties_place"), "are malformed"),
    "two_ties_npz": "tied to 'w', which is a different array",
    "two_ties_npz_forged": "tied to another tensor, whose bytes are different",
    "two_surrogate": "an unpaired surrogate",
    **dict.fromkeys(
        ("two_tar_prefix", "two_tar_zero", "two_tar_folder"),
        "its header is ambiguous: other readers interpret it differently",
    ),
}
