"""Zip archives that contradict themselves."""

from __future__ import annotations

from ..build.torch_zips import member, torch_zip, zip64_extra
from ..build.zips import FOUR, Member, deflated
from ._case import Case, Gives

NOISE = b"\xff" * 16


def storage(**lies: object) -> bytes:
    """A torch zip with lies about storage "0"."""
    return torch_zip(lies={"data/0": lies})


def central(**fields: object) -> bytes:
    return storage(central=fields)


def local(**fields: object) -> bytes:
    return storage(local=fields)


def huge(name: str) -> bytes:
    fields = {"csize": 0xFFFFFFFF, "usize": 0xFFFFFFFF, "extra": zip64_extra(2**62, 2**62)}
    return torch_zip(lies={name: {"central": fields}})


def short_extra() -> bytes:
    fields = {"csize": 0xFFFFFFFF, "usize": 0xFFFFFFFF, "extra": zip64_extra(16, 16)[:12]}
    return central(**fields)


def into_central() -> bytes:
    """The second storage's header lies in the central directory."""
    whole = torch_zip()
    return torch_zip(lies={"data/0": {"central": {"offset": whole.rindex(b"PK\1\2")}}})


def pressed(raw: bytes) -> bytes:
    return storage(method=8, raw=raw)


def outside_names() -> bytes:
    return torch_zip(more=[Member(b"/etc/evil", b"x"), Member(b"../../x", b"x")])


def _case(name: str, what: str, build: object, gives: Gives = "error") -> Case:
    return Case(name, gives, what, build)


ENTRIES = [
    _case("zip_dup_storage", "data/0 twice", lambda: torch_zip(more=[member("data/0", FOUR[::-1])])),
    _case("zip_overlap_two", "two names, one local entry",
          lambda: torch_zip(more=[member("data/1", FOUR, at=b"archive/data/0")])),
    _case("zip_usize_gt_csize_stored", "stored, usize 2**20", lambda: central(usize=1 << 20)),
    _case("zip_usize_4g", "usize 0xFFFFFFFE", lambda: central(usize=0xFFFFFFFE)),
    _case("zip64_size_huge", "zip64 says 2**62", lambda: huge("data/0")),
    _case("zip64_pkl_size_huge", "zip64 says data.pkl is 2**62", lambda: huge("data.pkl")),
    _case("zip64_extra_short", "zip64 extra truncated", short_extra),
    _case("zip_extra_overrun", "extra length overruns", lambda: central(xlen=60_000)),
    _case("zip_local_size_differs", "local sizes differ", lambda: local(csize=12, usize=12)),
    _case("zip_local_method_differs", "local says deflate", lambda: local(method=8)),
    _case("zip_local_crc_differs", "local crc differs", lambda: local(crc=0xDEADBEEF)),
    _case("zip_local_sig_bad", "no local signature", lambda: local(signature=b"PK\7\7")),
    _case("zip_local_xlen_shift", "local extra longer by 4", lambda: local(xlen=4)),
    _case("zip_off_beyond_eof", "offset beyond the end", lambda: central(offset=0x7FFFFFFF)),
    _case("zip_off_into_central", "offset in the central directory", into_central),
    _case("zip_method_lzma", "method 14", lambda: storage(both={"method": 14})),
]  # fmt: skip

WHOLE = [
    _case("zip_prefix_garbage", "1 KiB before, offsets adjusted", lambda: torch_zip(before=bytes(1024))),
    _case("zip_sfx_shift", "1 KiB before, offsets not", lambda: torch_zip(before=bytes(1024), adjust=False)),
    _case("zip_trailing_garbage", "bytes after the end", lambda: torch_zip(after=b"garbage"), "either"),
    _case("zip_gap", "hidden bytes between entries", lambda: storage(gap=b"hidden bytes"), "either"),
    _case("zip_count_low", "the end says 2", lambda: torch_zip(count=2)),
    _case("zip_count_high", "the end says 9", lambda: torch_zip(count=9)),
    _case("zip_cd_off_bad", "directory offset wrong", lambda: torch_zip(offset=17)),
    _case("zip_cd_size_huge", "directory size 4 GiB", lambda: torch_zip(size=0xFFFFFFFE)),
    _case("zip_multidisk", "disk numbers", lambda: torch_zip(disk=1)),
    _case("zip_empty_archive", "no entries",
          lambda: torch_zip(None, {}, byteorder=None, version=None)),
]  # fmt: skip

PRESSED = [
    Case("zip_deflate_storage", "loads", "only data/0 deflated", lambda: storage(method=8)),
    _case("zip_deflate_garbage", "no deflate stream", lambda: pressed(NOISE)),
    _case("zip_deflate_short", "fewer bytes than declared", lambda: pressed(deflated(FOUR[:8]))),
    _case("zip_deflate_long", "more bytes than declared", lambda: pressed(deflated(FOUR * 2))),
    _case("zip_deflate_tail", "bytes after the stream's end", lambda: pressed(deflated(FOUR) + b"tail")),
]

NAMES = [
    _case("zip_abs_path", "'/etc/evil' and '../../x'", outside_names, "either"),
    _case("zip_long_name", "65,000 bytes", lambda: torch_zip(more=[member("x" * 65_000, b"")]), "either"),
    _case("zip_bad_utf8_name", "not UTF-8", lambda: torch_zip(more=[Member(b"archive/\xff\xfe", b"")]), "either"),
]

CASES = ENTRIES + WHOLE + PRESSED + NAMES
