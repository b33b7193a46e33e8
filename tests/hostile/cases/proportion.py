"""Small files whose cost is out of proportion in other ways: by compression, by sharing, by what values are printed."""

from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

from ..build import npz, scripts, shards, streams, tensors
from ..build import pickles as p
from ..build.torch_zips import member, torch_zip
from ..build.zips import DEFLATED, FOUR, Member, archive
from ._case import Case, Gives

MILLION = 1_000_000
# An integer of 9,600 digits, which Python refuses to print.
LONG = b"\x8b" + struct.pack("<i", 4_000) + b"\1" * 4_000
PRESSED = {"data.pkl": {"method": DEFLATED}}


def _case(name: str, what: str, build: object, gives: Gives = "error", *, placed: bool = False) -> Case:
    return Case(name, gives, what, build, None, placed)


def pickled(*parts: bytes, protocol: int = 2, **layout: object) -> bytes:
    return torch_zip(p.pickled(*parts, protocol=protocol), **layout)


def pressed(*parts: bytes, protocol: int = 2) -> bytes:
    return pickled(*parts, protocol=protocol, lies=PRESSED)


def kind(code: str, order: str = "|", **state: bytes) -> bytes:
    """A NumPy dtype; `state` are its subarray, names, fields and size."""
    made = p.call(p.name("numpy", "dtype"), p.text(code), p.FALSE, p.TRUE)
    fields = {"subarray": p.NONE, "names": p.NONE, "fields": p.NONE, "size": p.integer(-1), **state}
    return p.build(made, p.tuple_(p.integer(3), p.text(order), *fields.values(), p.integer(-1), p.integer(0)))


def record(inside: bytes, size: int, names: str = "a") -> bytes:
    """A structured dtype of so many bytes whose fields are all `inside`."""
    fields = p.dict_(*((p.text(name), p.tuple_(inside, p.integer(0))) for name in names))
    return kind(f"V{size}", names=p.tuple_(*map(p.text, names)), fields=fields, size=p.integer(size))


def deep_dtype(depth: int) -> bytes:
    head = kind("i4", "<") + p.put(0) + p.POP
    return head + (record(p.get(0), 4) + p.put(0) + p.POP) * depth + p.get(0)


def wide_dtype(depth: int) -> bytes:
    """Each level has two fields of the one below, of no bytes: 2**depth in all."""
    head = kind("V0") + p.put(0) + p.POP
    for _ in range(depth):
        head += record(p.get(0), 0, "ab") + p.put(0) + p.POP
    return head + p.get(0)


def decimal(text: str) -> bytes:
    return p.call(p.name("decimal", "Decimal"), p.text(text))


def laughs(slot: int = 0, start: bytes = p.tuple_()) -> bytes:
    """A tuple whose text is endless: each level is a pair of the one below, 64 times."""
    return start + b"".join(p.put(slot) + p.get(slot) + b"\x86" for _ in range(64))


def view(size: tuple[int, ...], stride: tuple[int, ...], **storage: object) -> bytes:
    return torch_zip(p.state(w=p.tensor(p.storage(**storage), size=size, stride=stride)))


def sparse() -> bytes:
    """A sparse tensor whose indices are one number, shown 2**40 times."""
    indices = p.tensor(p.storage("0", 2, "LongStorage"), size=(1, 2**40), stride=(0, 0))
    values = p.tensor(p.storage("0", 4), size=(2**40,), stride=(0,))
    layout = p.call(p.name("torch.serialization", "_get_layout"), p.text("torch.sparse_coo"))
    data = p.tuple_(indices, values, p.integers((9,)))
    return torch_zip(p.state(w=p.call(p.name("torch._utils", "_rebuild_sparse_tensor"), layout, data)))


def nested() -> bytes:
    """A nested tensor with 2**40 parts, all of one size."""
    longs = p.storage("0", 2, "LongStorage")
    sizes = p.tensor(longs, size=(2**40, 1), stride=(0, 0))
    offsets = p.tensor(longs, size=(2**40,), stride=(0,))
    rebuild = p.name("torch._utils", "_rebuild_nested_tensor")
    return torch_zip(p.state(w=p.call(rebuild, p.tensor(), sizes, sizes, offsets)), {"0": bytes(16)})


def again(pushed: bytes, count: int, *, kept: bool = True) -> bytes:
    """A value, and `count` times the opcodes `pushed`, which take it from slot 1; in a list, or thrown away."""
    return b"](" + pushed * count + b"e" if kept else (pushed + p.POP) * count + b"N"


def long_paths() -> bytes:
    """900 dicts in each other, all with one key of a megabyte."""
    key = p.text("k" * MILLION) + p.put(0) + p.POP
    return pickled(key + (b"}" + p.get(0)) * 900 + p.tensor() + b"s" * 900)


def asked_again(count: int) -> bytes:
    """A plain pickle that holds a file of its own, which is to be read `count` times."""
    storage = streams.legacy(p.pickled(streams.PLACE))
    loader = p.name("torch.storage", "_load_from_bytes") + p.put(0)
    raw = b"B" + struct.pack("<I", len(storage)) + storage + p.put(1)
    return p.pickled(loader + p.POP + raw + p.POP + b"](" + (p.get(0) + p.get(1) + b"\x85R") * count + b"e")


def texts(count: int) -> bytes:
    """Arrays of 100,000 letters each."""
    header = "{'descr': '<U1', 'fortran_order': False, 'shape': (100000,), }"
    raw = npz.npy(header, "\u4e00".encode("utf-32-le") * 100_000)
    return archive(*(Member(f"t{n}.npy".encode(), raw, DEFLATED) for n in range(count)))


def arrays(count: int) -> bytes:
    raw = npz.npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000,), }", bytes(4 * MILLION))
    return archive(*(Member(f"a{n}.npy".encode(), raw, DEFLATED) for n in range(count)))


def many_links() -> bytes:
    return streams.tar(more={f"m{n}": b"" for n in range(20_000)})


def unmet(count: int) -> bytes:
    return streams.legacy(keys=p.pickled(p.list_(*(p.text(str(n)) for n in range(count)))))


def named(raw: bytes, name: str) -> object:
    def place(folder: Path) -> Path:
        (folder / name).write_bytes(raw)
        return folder / name

    return place


def distributed(old: bytes, new: bytes) -> object:
    def place(folder: Path) -> Path:
        files = shards.distributed()
        assert old in files[".metadata"]
        return shards.write_all(folder, {**files, ".metadata": files[".metadata"].replace(old, new)})

    return place


def huge_index() -> bytes:
    return json.dumps({"weight_map": {f"w{n}": shards.FIRST for n in range(200_000)}}).encode()


COMPRESSED = [
    _case("press_tuples", "3,000,000 tuples", lambda: pressed(b"](" + b"N\x85" * 3 * MILLION + b"e")),
    _case("press_20_mib", "10,000,000 tuples", lambda: pressed(b"](" + b"N\x85" * 10 * MILLION + b"e")),
    *(
        _case(f"press_{name}", f"{name} in two megabytes", partial(pressed, parts, protocol=protocol))
        for name, parts, protocol in (
            ("tuples_less", b"](" + b"N\x85" * MILLION + b"e", 2),
            ("lists", b"](" + b"]" * (2 * MILLION) + b"e", 2),
            ("dicts", b"](" + b"}" * (2 * MILLION) + b"e", 2),
            ("opaques", p.name("a", "b") + p.put(0) + b"0](" + (p.get(0) + b")\x81") * (MILLION // 2) + b"e", 2),
            ("memo", b"N" + b"\x94" * (2 * MILLION), 4),
            ("ordered_dicts", p.name("collections", "OrderedDict") + p.put(0) + b"0]("
             + (p.get(0) + b")R") * (MILLION // 2) + b"e", 2),
            ("dups", b"](" + b"N" + b"2\x85" * MILLION + b"e", 2),
        )
    ),
    _case("press_string", "a string of 60 MB", lambda: pressed(p.text("x" * 60 * MILLION))),
    _case("press_nothing", "two million operations", lambda: pressed(b"N0" * MILLION + b"N"), "either"),
    _case("press_texts", "arrays of text", lambda: texts(150), "either"),
    _case("press_arrays", "arrays of zeros, of which the headers are looked at", lambda: arrays(15), "either"),
    _case("press_extra", "60 members of a mebibyte below extra/",
          lambda: torch_zip(more=[member(f"extra/{n}", bytes(1 << 20), method=DEFLATED) for n in range(60)]), "either"),
    _case("press_source", "source code of newlines", lambda: scripts.script(code=b"\n" * 30 * MILLION)),
    _case("press_source_less", "less of it", lambda: scripts.script(code=b"a\n" * MILLION), "either"),
]  # fmt: skip

SHOWN = [
    _case("show_one_element", "100,000 x 100,000 times", lambda: view((100_000, 100_000), (0, 0)), "either"),
    _case("show_2_61", "2**61 times", lambda: view((2**61,), (0,), kind="ByteStorage"), "either"),
    _case("show_sparse", "indices of a sparse tensor", sparse),
    _case("show_nested", "sizes of a nested tensor", nested),
    _case("show_npy", "a list of 2**40 empty ones",
          lambda: npz.npy("{'descr': '<U4', 'fortran_order': False, 'shape': (1099511627776, 0), }", b""), "either"),
    _case("show_paths", "900 keys of a megabyte in each other", long_paths, "either"),
    _case("show_laughs_version", "the version of a legacy file",
          lambda: streams.MAGIC + p.pickled(laughs())),
    _case("show_laughs_tar", "the key of a storage in a tar",
          lambda: streams.tar(p.pickled(p.integer(1)) + p.pickled(p.tuple_(laughs(), p.text("cpu"),
                              p.name("torch", "FloatStorage"))) + struct.pack("<q", 4) + FOUR)),
    _case("show_laughs_offset", "an offset in distributed metadata",
          distributed(shards.size(1, 0), laughs()), placed=True),
    _case("show_laughs_name", "a file's name there",
          distributed(p.text("__1_0.distcp"), laughs()), placed=True),
    _case("show_digits", "a version of 9,000 digits",
          lambda: streams.MAGIC + p.pickled(LONG)),
]  # fmt: skip

NUMBERS = [
    _case(f"number_{number}", f"{module}.{name}({text[:20]})",
          lambda module=module, name=name, text=text: pickled(p.call(p.name(module, name), p.text(text))), "either")
    for number, (module, name, text) in enumerate((
        ("fractions", "Fraction", "1e10000000"),
        ("fractions", "Fraction", "1e-999999999"),
        ("fractions", "Fraction", "9" * 4_000),
        ("decimal", "Decimal", "1e999999999999999999"),
        ("decimal", "Decimal", "sNaN"),
        ("builtins", "complex", "1" * 4_000),
        ("uuid", "UUID", "0" * 32),
        ("pathlib", "PosixPath", "/" * 100_000),
        ("builtins", "int", "9" * 100_000),
    ))
] + [
    _case("number_key_decimal", "keys that are compared with fractions",
          lambda: pickled(p.dict_(*((decimal(f"{n}e99999999"), p.NONE) for n in range(1, 99)))), "either"),
    _case("number_timedelta", "a time of 2**30,000 days",
          lambda: pickled(p.call(p.name("datetime", "timedelta"), LONG)), "either"),
    _case("number_dtype_deep", "dtypes 5,000 deep", lambda: pickled(deep_dtype(5_000))),
    _case("number_dtype_wide", "a dtype of 2**30 fields", lambda: pickled(wide_dtype(30))),
    _case("number_dtype_wide_less", "a dtype of 2**15 fields", lambda: pickled(wide_dtype(15))),
]  # fmt: skip

STORAGE_ID = p.tuple_(p.text("storage"), p.name("torch", "FloatStorage"), p.text("0"), p.text("cpu"), p.integer(4))
TENSOR_OF = p.tuple_(p.storage(), p.integer(0), p.integers((1,)), p.integers((1,)), p.FALSE, p.ordered_dict())
FLOODS = [
    _case("flood_persid", "one storage named 50,000 times",
          lambda: pickled(STORAGE_ID + p.put(1) + p.POP + again(p.get(1) + b"Q", 50_000)), "loads"),
    _case("flood_persid_popped", "the same, thrown away",
          lambda: pickled(STORAGE_ID + p.put(1) + p.POP + again(p.get(1) + b"Q", 50_000, kept=False)), "loads"),
    _case("flood_tensors", "one tensor rebuilt 50,000 times",
          lambda: pickled(p.name("torch._utils", "_rebuild_tensor_v2") + p.put(0) + TENSOR_OF + p.put(1) + p.POP + p.POP
                          + again(p.get(0) + p.get(1) + b"R", 50_000)), "loads"),
    _case("flood_memo", "300,000 slots",
          lambda: pickled(b"N" + b"".join(b"r" + struct.pack("<I", n) for n in range(300_000))), "either"),
    _case("flood_ordered_dicts", "OrderedDicts 5,000 deep",
          lambda: pickled(p.name("collections", "OrderedDict") + p.put(0) + b")R"
                          + (p.text("k") + p.get(0) + b")R") * 5_000 + b"s" * 5_000)),
    _case("flood_reduce", "calls 50,000 deep", lambda: pickled(p.name("a", "b") * 50_000 + b")" + b"R\x85" * 49_999 + b"R")),
    _case("flood_build", "states 50,000 deep", lambda: pickled((p.name("a", "b") + b")R") * 50_000 + b"b" * 49_999)),
    _case("flood_long", "integers of 4,000 bytes, one after the other",
          lambda: pickled(b"](" + LONG * 200 + b"e"), "either"),
    _case("flood_asked_again", "a file inside a pickle, read 100,000 times", lambda: asked_again(100_000)),
    _case("flood_json_nested", "safetensors' header, 100,000 deep", lambda: tensors.safetensors(b'{"w":' + b"[" * 100_000)),
    _case("flood_json_lists", "1,000,000 lists", lambda: tensors.safetensors(b'{"w":[' + b"[]," * MILLION + b"[]]}")),
    _case("flood_json_keys", "300,000 keys",
          lambda: tensors.safetensors(b"{" + b",".join(b'"%x":1' % n for n in range(300_000)) + b"}")),
    _case("flood_index", "200,000 names of a shard that is not there", named(huge_index(), "m.safetensors.index.json"),
          placed=True),
    _case("flood_tar", "20,000 members", many_links, "either"),
    _case("flood_legacy_keys", "200,000 storages that nothing names", lambda: unmet(200_000)),
]  # fmt: skip

CASES = COMPRESSED + SHOWN + NUMBERS + FLOODS
TOLD = {
    **dict.fromkeys(("press_tuples", "press_20_mib", "press_string", "press_source"), "parsed_bytes"),
    **dict.fromkeys(("press_tuples_less", "press_lists", "press_dicts", "press_opaques", "press_memo"), "value_bytes"),
    **dict.fromkeys(("show_sparse", "show_nested"), "expansion"),
    "show_laughs_tar": "a key must be an integer, not a tuple",
    "show_digits": "an int of 31,993 bits",
    "number_dtype_deep": "dtype_depth",
    "number_dtype_wide": "dtype_fields",
    "flood_asked_again": "nested files, too many for its size",
}
