"""Safetensors files with headers that say too much, too little, or the same thing twice."""

from __future__ import annotations

import json
from pathlib import Path

from ..build.tensors import entry, safetensors, w
from ..build.zips import FOUR
from ._case import Case, Gives

GOOD = safetensors()
HEADER = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
ENTRY = b'{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'


def two(a: tuple[int, int], b: tuple[int, int], size: int) -> bytes:
    """Two tensors at those spans."""
    header = {name: entry(shape=[(stop - start) // 4], start=start, stop=stop) for name, (start, stop) in
              {"a": a, "w": b}.items()}  # fmt: skip
    return safetensors(header, bytes(size))


def meta(written: bytes) -> bytes:
    return safetensors(b'{"__metadata__":' + written + b',"w":' + ENTRY + b"}")


def named(name: bytes) -> bytes:
    return safetensors(b'{"' + name + b'":' + ENTRY + b"}")


def with_field(field: bytes) -> bytes:
    """The header with one more field in the tensor's entry."""
    return HEADER[:-2] + b"," + field + b"}}"


def many() -> bytes:
    return safetensors({f"t{n}": entry(shape=[0], stop=0) for n in range(60_000)}, b"")


def index(shards: dict[str, str], folder: Path) -> Path:
    """An index beside one good shard, in a folder of its own; the same shard lies outside it too."""
    inside = folder / "model"
    inside.mkdir()
    for place in (inside, folder):
        (place / "model-00001-of-00001.safetensors").write_bytes(GOOD)
    path = inside / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": shards}))
    return path


def _case(name: str, what: str, build: object, gives: Gives = "error", values: object = None) -> Case:
    return Case(name, gives, what, build, values)


def _shape(name: str, what: str, written: str) -> Case:
    return _case(f"st_{name}", what, lambda: safetensors(w(written)))


def _header(name: str, what: str, written: bytes, gives: Gives = "error") -> Case:
    return _case(f"st_{name}", what, lambda: safetensors(written), gives, {"w": [1, 2, 3, 4]})


def _entry(name: str, what: str, gives: Gives = "error", data: bytes = FOUR, **fields: object) -> Case:
    return _case(f"st_{name}", what, lambda: safetensors({"w": entry(**fields)}, data), gives)


LENGTHS = [
    _case("st_empty_file", "0 bytes", bytes),
    _case("st_short", "3 bytes", lambda: GOOD[:3]),
    _case("st_hlen_huge", "header length 2**63+5", lambda: safetensors(length=2**63 + 5)),
    _case("st_hlen_wrap", "header length + 8 wraps", lambda: safetensors(length=2**64 - 8)),
    _case("st_hlen_past_eof", "past the end", lambda: safetensors(length=1000)),
    _case("st_hlen_zero", "header length 0", lambda: safetensors(length=0)),
    _case("st_hlen_short", "cut by one byte", lambda: safetensors(length=len(HEADER) - 1)),
]

TEXTS = [
    _header("not_json", "not JSON", b"{not json}"),
    _header("array", "a list", b"[" + HEADER + b"]"),
    _header("utf8_bad", "invalid UTF-8", b'{"\xff\xfe":' + ENTRY + b"}"),
    _header("bom", "a byte order mark", b"\xef\xbb\xbf" + HEADER),
    _case("st_utf16", "UTF-16", lambda: safetensors(HEADER.decode().encode("utf-16"))),
    _header("leading_space", "leading whitespace", b"  " + HEADER, "either"),
    _header("trailing_junk_in_header", "junk after the JSON", HEADER + b"x"),
    _header("json_nan", "NaN", with_field(b'"x":NaN')),
    _header("json_deep", "nested 200,000 deep", with_field(b'"x":' + b"[" * 200_000 + b"]" * 200_000)),
    _case("st_json_bigint", "a million digits", lambda: safetensors(w("[" + "9" * 1_000_000 + "]"))),
    _shape("json_leading_zero", "04", "[04]"),
    _header("json_comment", "a comment", b"{/* */" + HEADER[1:]),
    _header("json_trailing_comma", "a trailing comma", HEADER[:-1] + b",}"),
    _case("st_json_ctrl", "a control character", lambda: named(b"a\nb")),
]

FIELDS = [
    _header("dup_key", "a key twice", b'{"w":' + ENTRY + b',"w":' + ENTRY + b"}"),
    _header("dup_key_escape", "hidden by an escape", b'{"w":' + ENTRY + b',"\\u0077":' + ENTRY + b"}"),
    _header("dup_field", "a field twice", HEADER.replace(b'"shape":[4]', b'"shape":[4],"shape":[2]')),
    _header("extra_field", "an unknown field", with_field(b'"x":1'), "either"),
    _header("missing_field", "no data_offsets", b'{"w":{"dtype":"F32","shape":[4]}}'),
    _entry("dtype_unknown", "no such dtype", dtype="F33"),
    _entry("dtype_case", "lower case", dtype="f32"),
    _entry("dtype_num", "a number", dtype=7),
    _entry("f4_odd", "half a byte", dtype="F4", shape=[3], stop=2, data=b"ab"),
    _entry("bool_values", "BOOL bytes of 2 and 255", "either", b"\x02\xff\x00\x01", dtype="BOOL", stop=4),
]

SPANS = [
    _case("st_overlap", "overlapping tensors", lambda: two((0, 16), (0, 16), 16)),
    _case("st_partial_overlap", "partly", lambda: two((0, 16), (8, 24), 24)),
    _case("st_hole", "a hole", lambda: two((0, 16), (24, 40), 40)),
    _case("st_hole_start", "a hole at the start", lambda: two((8, 24), (24, 40), 40)),
    _case("st_trailing", "trailing bytes", lambda: GOOD + b"PK\3\4"),
    _case("st_truncated", "one byte short", lambda: GOOD[:-1]),
    _entry("reversed", "end before begin", start=16, stop=0),
    _entry("offsets_neg", "negative", start=-16, stop=0),
    _header("offsets_3", "three offsets", HEADER.replace(b"[0,16]", b"[0,16,16]")),
]

SHAPES = [
    _shape("shape_mismatch", "shape and span differ", "[5]"),
    _shape("overflow_shape", "overflows", "[4294967296,4294967296,4294967296]"),
    _shape("overflow_wrap", "2**66 wraps", "[8589934592,8589934592,1]"),
    _shape("overflow_wrap16", "a dimension over 2**63", "[9223372036854775812]"),
    _case("st_zero_times_huge", "0 times huge",
          lambda: safetensors({"w": entry(shape=[0, 2**63, 2**63], stop=0)}, b""), "either"),
    _shape("shape_neg", "[-4]", "[-4]"),
    _shape("shape_float", "[4.0]", "[4.0]"),
    _shape("shape_exp", "4e0", "[4e0]"),
    _shape("shape_str", '["4"]', '["4"]'),
    _shape("shape_bool", "[true]", "[true]"),
    _shape("shape_null", "[null]", "[null]"),
    _shape("shape_bigint", "31 digits", "[1000000000000000000000000000000]"),
    _shape("shape_scalar", "no list", "4"),
]  # fmt: skip

METADATA = [
    _case("st_meta_nonstr", "a number", lambda: meta(b'{"a":1}')),
    _case("st_meta_nested", "nested", lambda: meta(b'{"a":{"b":"c"}}')),
    _case("st_meta_list", "a list", lambda: meta(b'["a"]')),
    _case("st_meta_null", "null", lambda: meta(b"null"), "either", {"w": [1, 2, 3, 4]}),
    _case("st_meta_as_tensor", "a tensor's entry", lambda: meta(ENTRY)),
]

NAMES = [
    _case("st_surrogate", "a lone surrogate", lambda: named(b"\\ud800"), "either"),
    _case("st_nul_name", "NUL", lambda: named(b"a\\u0000b"), "either", {"a\0b": [1, 2, 3, 4]}),
    _case("st_name_path", "looks like a path", lambda: named(b"../../etc/passwd"), "loads",
          {"../../etc/passwd": [1, 2, 3, 4]}),
    _case("st_name_empty", "empty", lambda: named(b""), "loads", {"": [1, 2, 3, 4]}),
    _case("st_name_huge", "1 MB", lambda: named(b"n" * 1_000_000), "either", {"n" * 1_000_000: [1, 2, 3, 4]}),
    _case("st_many_empty", "60,000 empty tensors", many, "either"),
]  # fmt: skip


def _index(name: str, what: str, shards: dict[str, str]) -> Case:
    return Case(f"st_index_{name}", "error", what, lambda folder: index(shards, folder), placed=True)


SHARD = "model-00001-of-00001.safetensors"
INDEXES = [
    _index("traversal", "outside its folder", {"w": f"../{SHARD}"}),
    _index("absolute", "an absolute path", {"w": "/etc/hostname"}),
    _index("missing_shard", "no such shard", {"w": "model-00002-of-00002.safetensors"}),
    _index("missing_key", "no such tensor in the shard", {"w": SHARD, "v": SHARD}),
]

CASES = LENGTHS + TEXTS + FIELDS + SPANS + SHAPES + METADATA + NAMES + INDEXES
