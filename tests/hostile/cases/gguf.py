"""GGUF files whose headers lie: counts, texts, shapes, kinds, offsets."""

from __future__ import annotations

import struct

from ..build.gguf import ARRAY, Tensor, Typed, gguf, text
from ..build.zips import FOUR
from ._case import Case, Gives

FOUR_BIG = struct.pack(">4f", 1, 2, 3, 4)
GOOD = gguf(metadata={"general.name": "good", "n": Typed("I", 4)})
Q4_0, IQ2_XXS, REMOVED = 2, 16, 4


def _case(name: str, what: str, build: object, gives: Gives = "error") -> Case:
    return Case(f"gguf_{name}", gives, what, build)  # type: ignore[arg-type]


def _tensors(name: str, what: str, *tensors: Tensor, gives: Gives = "error") -> Case:
    return _case(name, what, lambda: gguf(tensors), gives)


def _value(name: str, what: str, value: object, gives: Gives = "error") -> Case:
    return _case(name, what, lambda: gguf(metadata={"v": value}), gives)


def array(item: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IIQ", ARRAY, item, count) + data


CASES = [
    _case("good", "a right file", lambda: GOOD, "loads"),
    _case("big_endian", "of the other byte order", lambda: gguf([Tensor(data=FOUR_BIG)], order=">"), "loads"),
    _case("magic_only", "4 bytes", lambda: b"GGUF"),
    _case("version_1", "an old version", lambda: gguf(version=1)),
    _case("version_huge", "a version to come", lambda: gguf(version=2**31)),
    _case("truncated", "one byte short of its tensor", lambda: GOOD[: 32 * (len(GOOD) // 32 - 1) + 15]),
    _case("count_tensors", "2**63 tensors", lambda: gguf(counts=(2**63, None))),
    _case("count_values", "2**63 values", lambda: gguf(counts=(None, 2**63))),
    _case("key_huge", "a key of 2**62 bytes", lambda: GOOD[:24] + struct.pack("<Q", 2**62) + GOOD[32:]),
    _case("key_twice", "a key twice", lambda: gguf(metadata=[("a", "x"), ("a", "y")])),
    _case("key_utf8", "a key that is not text", lambda: gguf(metadata=[(b"\xff", "x")])),
    _value("type_unknown", "a value of type 13", struct.pack("<IQ", 13, 0)),
    _value("text_huge", "a text of 2**64 - 1 bytes", struct.pack("<IQ", 8, 2**64 - 1)),
    _value("array_huge", "2**61 numbers", array(6, 2**61)),
    _value("array_texts_huge", "2**61 texts", array(8, 2**61)),
    _value("array_of_unknown", "an array of type 99", array(99, 1, b"x")),
    _value("array_deep", "arrays in arrays, 10,000 deep", struct.pack("<I", ARRAY) + array(ARRAY, 1)[4:] * 10_000),
    _value("array_of_empty", "300,000 empty arrays", array(ARRAY, 300_000, struct.pack("<IQ", 0, 0) * 300_000), "either"),
    _case("alignment_0", "alignment 0", lambda: gguf(metadata={"general.alignment": Typed("I", 0)})),
    _case("alignment_3", "alignment 3", lambda: gguf(metadata={"general.alignment": Typed("I", 3)})),
    _case("alignment_text", "alignment as text", lambda: gguf(metadata={"general.alignment": "32"})),
    _case("alignment_huge", "alignment 2**63", lambda: gguf(metadata={"general.alignment": Typed("Q", 2**63)})),
    _tensors("name_twice", "two tensors of one name", Tensor(), Tensor()),
    _tensors("name_utf8", "a name that is not text", Tensor(b"\xff\xfe")),
    _tensors("overlap", "two tensors of the same bytes", Tensor(), Tensor("v", offset=0)),
    _tensors("overlap_part", "in part", Tensor(shape=(16,), data=FOUR * 4), Tensor("v", offset=32)),
    _tensors("offset_odd", "an offset that is not aligned", Tensor(), Tensor("v", offset=8)),
    _tensors("offset_past", "an offset beyond the end", Tensor(offset=1 << 40)),
    _tensors("offset_wrap", "an offset that wraps", Tensor(offset=2**64 - 32)),
    _tensors("shape_large", "a shape larger than the file", Tensor(shape=(5000,))),
    _tensors("shape_wrap", "a shape whose product wraps", Tensor(shape=(2**32, 2**32, 4))),
    _tensors("shape_zero_huge", "0 times huge", Tensor(shape=(0, 2**63, 2**63))),
    _tensors("dimensions", "200 dimensions", Tensor(shape=(1,) * 200)),
    _case("dimensions_huge", "2**32 - 1 dimensions",
          lambda: gguf([], counts=(1, None))[:24] + text("w") + struct.pack("<I", 2**32 - 1) + bytes(99)),
    _tensors("block_odd", "rows that are not whole blocks", Tensor(shape=(33,), kind=Q4_0, data=bytes(36))),
    _tensors("block_short", "a block that is cut", Tensor(shape=(3200,), kind=Q4_0, data=bytes(18))),
    _tensors("kind_unsupported", "a kind that is only named", Tensor(shape=(256,), kind=IQ2_XXS, data=bytes(66))),
    _tensors("kind_unknown", "a kind without a name", Tensor(kind=REMOVED)),
    _tensors("kind_huge", "kind 2**32 - 1", Tensor(kind=2**32 - 1)),
    _tensors("kind_lie", "an unknown kind of a tebibyte", Tensor(shape=(1 << 40,), kind=REMOVED)),
]  # fmt: skip
