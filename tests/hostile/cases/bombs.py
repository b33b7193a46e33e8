"""Small files that ask for much: memory, time, stack."""

from __future__ import annotations

import struct
import zlib
from functools import cache

from ..build import pickles as p
from ..build.torch_zips import member, torch_zip
from ..build.zips import FOUR, Member
from ._case import Case, Gives

MIB = 1 << 20
DEEP = 2_000_000


def value(*parts: bytes, protocol: int = 2) -> bytes:
    """A torch zip whose pickle is a state dict with "w" and a value "x" that the parts push."""
    return torch_zip(p.pickled(p.dict_((p.text("w"), p.tensor()), (p.text("x"), b"".join(parts))), protocol=protocol))


def bare(*parts: bytes, protocol: int = 4) -> bytes:
    return torch_zip(p.pickled(*parts, protocol=protocol))


def laughs() -> bytes:
    """Each level is a pair of the one below: x, then [x, x], 64 times."""
    level = b"".join(p.put(n) + p.POP + b"](" + p.get(n) * 2 + b"e" for n in range(64))
    return value(p.list_(p.integer(1)), level)


def cycle(empty: bytes, add: bytes) -> bytes:
    return value(empty, p.put(0), add)


def colliding() -> bytes:
    """Ints that are all equal modulo CPython's hash modulus, so that they hash alike."""
    keys = (p.integer(k * (2**61 - 1)) for k in range(1, 40_001))
    return value(p.dict_(*((key, p.NONE) for key in keys)))


@cache
def zeros(mebibytes: int) -> tuple[bytes, int]:
    """A deflate stream of that many MiB of zeros, and their CRC.

    A fully flushed block stands for itself wherever it lies, so one block is repeated.
    """
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = block.compress(bytes(MIB)) + block.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(mebibytes):
        crc = zlib.crc32(bytes(MIB), crc)
    return once * mebibytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush(), crc


def _bomb(name: str) -> dict[str, object]:
    raw, crc = zeros(256)
    return {name: {"method": 8, "raw": raw, "both": {"crc": crc, "usize": 256 * MIB}}}


def storage_bomb() -> bytes:
    zeros_of = p.tensor(p.storage(numel=64 * MIB), size=(64 * MIB,))
    return torch_zip(p.state(w=zeros_of), {"0": b""}, lies=_bomb("data/0"))


def overlapping() -> bytes:
    body = bytes(4 * MIB)
    shared = [member(f"data/{n}", body, at=b"archive/data/1") for n in range(2, 257)]
    return torch_zip(storages={"0": FOUR, "1": body}, more=shared)


def views(method: int) -> bytes:
    """Twenty thousand views of one storage of 4 MiB."""
    place = p.storage(numel=MIB) + p.put(0)
    again = (p.text(f"v{n}") + p.tensor(p.get(0), offset=n, size=(MIB - n,)) for n in range(1, 20_000))
    state = p.pickled(b"}(", p.text("w"), p.tensor(place), *again, b"u")
    return torch_zip(state, {"0": bytes(range(256)) * (4 * MIB // 256)}, lies={"data/0": {"method": method}})


def crowded() -> bytes:
    return torch_zip(more=[Member(f"archive/empty/{n}".encode(), b"") for n in range(60_000)])


def _case(name: str, what: str, build: object, gives: Gives = "error", values: object = None) -> Case:
    return Case(name, gives, what, build, values)


W = {"w": [1, 2, 3, 4]}

NESTING = [
    _case("memo_laughs", "2**64 logical items", laughs, "either", W),
    _case("cycle_list", "a list in itself", lambda: cycle(b"]", p.get(0) + b"a"), "either", W),
    _case("cycle_dict", "a dict in itself", lambda: cycle(b"}", p.text("k") + p.get(0) + b"s"), "either", W),
    _case("deep_tuple", "a tuple 2,000,000 deep", lambda: value(b")", b"\x85" * DEEP), "either"),
    _case("deep_tuple_key", "the same as a key", lambda: value(p.dict_((b")" + b"\x85" * DEEP, p.NONE)))),
    _case("deep_mark", "2,000,000 marks", lambda: value(b"(" * DEEP)),
    _case("deep_list", "lists 500,000 deep", lambda: value(b"]" * 500_000, b"a" * 499_999), "either"),
    _case("hash_collide", "40,000 keys with one hash", colliding),
]

CLAIMS = [
    _case("memo_index_4g", "memo slot 4,294,967,280",
          lambda: value(b"]r" + struct.pack("<I", 0xFFFFFFF0), b"j" + struct.pack("<I", 5), p.POP)),
    _case("str_len_claim", "BINUNICODE of 4 GiB", lambda: bare(b"X" + struct.pack("<I", 2**32 - 1) + b"abc")),
    _case("bytes8_claim", "BINBYTES8 of 2**62", lambda: bare(b"\x8e" + struct.pack("<Q", 2**62) + b"abc")),
    _case("bytearray8_claim", "BYTEARRAY8 of 2**36",
          lambda: bare(b"\x96" + struct.pack("<Q", 2**36) + b"abc", protocol=5)),
    _case("long4_claim", "LONG4 of 2**31-1", lambda: bare(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"abc")),
    _case("long4_neg", "LONG4 of negative length", lambda: bare(b"\x8b" + struct.pack("<i", -5) + b"abc")),
    _case("int_text_digits", "2,000,000 digits", lambda: bare(b"I" + b"9" * DEEP + b"\n")),
    _case("frame_claim", "FRAME of 2**62", lambda: bare(b"\x95" + struct.pack("<Q", 2**62) + b"}")),
    _case("proto_255", "protocol 255", lambda: bare(b"}", protocol=255)),
    _case("stack_underflow", "TUPLE3 on an empty stack", lambda: bare(b"\x87")),
    _case("memo_missing", "an unset slot", lambda: bare(p.get(9))),
    _case("no_stop", "no STOP", lambda: torch_zip(p.pickled(b"}", stop=b""))),
    _case("trailing_after_stop", "garbage after STOP",
          lambda: torch_zip(p.state(w=p.tensor()) + b"garbage"), "either", W),
    _case("setitems_odd", "SETITEMS with an odd number", lambda: bare(b"}(" + p.text("a") + b"u")),
    _case("unhashable_key", "a list as a key", lambda: bare(p.dict_((p.list_(), p.NONE)))),
    _case("dup_keys", "one key twice",
          lambda: torch_zip(p.pickled(p.dict_((p.text("w"), p.tensor(offset=0, size=(2,))),
                                              (p.text("w"), p.tensor(offset=2, size=(2,)))))), "either"),
]  # fmt: skip

ARCHIVES = [
    _case("zip_bomb_pkl", "data.pkl of 256 MiB of zeros", lambda: torch_zip(b"", lies=_bomb("data.pkl"))),
    _case("zip_bomb_storage", "data/0 of 256 MiB of zeros", storage_bomb, "either"),
    _case("zip_overlap_bomb", "256 entries share 4 MiB", overlapping),
    _case("zip_many_views", "20,000 views of one storage", lambda: views(0), "either"),
    _case("zip_many_views_deflated", "the same, deflated", lambda: views(8), "either"),
    _case("zip_many_entries", "60,000 empty members", crowded, "either", W),
]

CASES = NESTING + CLAIMS + ARCHIVES
