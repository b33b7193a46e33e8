"""Tensors that claim what their storages do not hold, and values that are not what they stand for."""

from __future__ import annotations

import struct

from ..build import pickles as p
from ..build.streams import KEYS, PLACE, legacy, tar, tar_storage, tar_tensor
from ..build.torch_zips import member, torch_zip
from ..build.zips import FOUR
from ._case import Case, Gives

LAYOUT = p.name("torch.serialization", "_get_layout")
LONG = "LongStorage"


def one(tensor: bytes, **storages: bytes) -> bytes:
    """A torch zip of a state dict with this tensor; storage "0" has 16 bytes."""
    return torch_zip(p.state(w=tensor), {"0": FOUR, **storages})


def _numel(claimed: int) -> bytes:
    return one(p.tensor(p.storage(numel=claimed)))


def _view(offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)) -> bytes:
    return one(p.tensor(offset=offset, size=size, stride=stride))


def _strange(size: bytes = p.integers((4,)), stride: bytes = p.integers((1,)), place: bytes = p.storage()) -> bytes:
    return one(p.rebuilt(place, p.integer(0), size, stride))


def _pair(values: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def _ints(key: str, count: int, *shape: int) -> bytes:
    stride = (shape[1], 1) if len(shape) == 2 else (1,)
    return p.tensor(p.storage(key, count, LONG), 0, shape, stride)


def coo(indices: tuple[int, int], coalesced: bytes) -> bytes:
    """A 3-element COO vector with two values, at `indices`."""
    data = p.tuple_(_ints("1", 2, 1, 2), p.tensor(p.storage(numel=4), size=(2,)), p.integers((3,)), coalesced)
    layout = p.call(LAYOUT, p.text("torch.sparse_coo"))
    return one(p.call(p.name("torch._utils", "_rebuild_sparse_tensor"), layout, data), **{"1": _pair(indices)})


def csr() -> bytes:
    """A 2x2 CSR matrix whose row pointers and columns lie outside."""
    parts = _ints("1", 3, 3), _ints("2", 2, 2), p.tensor(size=(2,)), p.integers((2, 2))
    layout = p.call(LAYOUT, p.text("torch.sparse_csr"))
    made = p.call(p.name("torch._utils", "_rebuild_sparse_tensor"), layout, p.tuple_(*parts))
    return one(made, **{"1": _pair((0, 900, 2)), "2": _pair((7, -4))})


def quantized() -> bytes:
    params = p.tuple_(p.name("torch", "per_tensor_affine"), p.real(0.5), p.integer(0))
    place = p.storage(numel=16, kind="QUInt8Storage")
    parts = place, p.integer(0), p.integers((4,)), p.integers((1000,)), params, p.FALSE, p.ordered_dict()
    return one(p.call(p.name("torch._utils", "_rebuild_qtensor"), *parts))


def shadowed() -> bytes:
    methods = p.dict_((p.text("items"), p.integer(1)), (p.text("keys"), p.integer(2)))
    entry = p.text("w") + p.tensor() + b"s"
    return torch_zip(p.pickled(p.build(p.ordered_dict() + entry, methods)))


def meta() -> bytes:
    parts = p.name("torch", "float32"), p.integers((2**40,)), p.integers((1,)), p.FALSE
    return one(p.call(p.name("torch._utils", "_rebuild_meta_tensor_no_storage"), *parts))


def tensor_set() -> bytes:
    state = p.tuple_(p.storage(), p.integer(0), p.integers((2**40,)), p.integers((1,)))
    return one(p.build(p.name("torch", "Tensor") + b")R", state))


def parameter_state() -> bytes:
    state = p.dict_((p.text("data"), p.integer(1)), (p.text("__class__"), p.name("builtins", "object")))
    function = p.name("torch._utils", "_rebuild_parameter_with_state")
    return one(p.call(function, p.tensor(), p.FALSE, p.ordered_dict(), state))


def next_record() -> bytes:
    """numel runs over the end of "0" into "1"."""
    return torch_zip(p.state(w=p.tensor(p.storage(numel=12), size=(12,))), {"0": FOUR, "1": FOUR * 8})


def alias() -> bytes:
    return one(p.dict_((p.text("a"), p.tensor()), (p.text("b"), p.tensor(p.storage(numel=4, kind="DoubleStorage")))))


def legacy_view(offset: int, size: int) -> bytes:
    view = p.tuple_(p.text("v"), p.integer(offset), p.integer(size))
    return legacy(p.state(w=p.tensor(p.storage("0", 4, "FloatStorage", "cpu", view))))


def legacy_unfilled() -> bytes:
    two = p.state(w=p.tensor(PLACE), x=p.tensor(p.storage("1", 4, "FloatStorage", "cpu", p.NONE)))
    return legacy(two)


def tar_storages(body: bytes) -> bytes:
    return tar(p.pickled(p.integer(1)) + body + p.pickled(b"]"))


def tar_tensors(body: bytes) -> bytes:
    return tar(tensors=p.pickled(p.integer(1)) + body)


def _case(name: str, what: str, build: object, gives: Gives = "error", values: object = None) -> Case:
    return Case(name, gives, what, build, values)


TAR_CASES = [
    _case("tar_size_oob", "size outside its storage", lambda: tar_tensors(tar_tensor(size=5))),
    _case("tar_offset_oob", "offset outside its storage", lambda: tar_tensors(tar_tensor(offset=1))),
    _case("tar_numel_huge", "storage length 2**60", lambda: tar_storages(tar_storage(2**60))),
    _case("tar_traversal", "a '../../evil' member", lambda: tar(more={"../../evil": b"x"}), "either",
          {"w": [1, 2, 3, 4]}),
]  # fmt: skip

CLAIMS = [
    _case("oob_numel_big", "4 MiB claimed, 16 bytes there", lambda: _numel(1 << 20)),
    _case("oob_numel_huge", "4 TiB claimed", lambda: _numel(1 << 40)),
    _case("oob_numel_small", "8 bytes claimed, 16 there", lambda: one(p.tensor(p.storage(numel=2), size=(2,))), "either",
          {"w": [1, 2]}),
    _case("oob_numel_neg", "negative numel", lambda: _numel(-4)),
    _case("oob_numel_overflow", "numel*itemsize overflows", lambda: _numel(2**62)),
    _case("oob_size", "one past the storage", lambda: _view(size=(5,))),
    _case("oob_size_large", "far past the storage", lambda: _view(size=(1 << 30,))),
    _case("oob_stride", "stride out of storage", lambda: _view(stride=(2,))),
    _case("oob_offset", "offset one past", lambda: _view(offset=1)),
    _case("oob_offset_huge", "offset huge", lambda: _view(offset=2**62)),
    _case("oob_offset_neg", "negative offset", lambda: _view(offset=-1)),
    _case("oob_stride_neg", "negative stride", lambda: _view(offset=3, stride=(-1,))),
    _case("oob_size_neg", "negative size", lambda: _view(size=(-4,))),
    _case("oob_overflow_sizes", "sizes multiply to 2**64", lambda: _view(size=(2**32, 2**32), stride=(1, 1))),
    _case("oob_overflow_stride", "(size-1)*stride*itemsize wraps", lambda: _view(size=(3,), stride=(2**61,))),
    _case("oob_overflow_wrap", "(5-1)*2**62 = 2**64", lambda: _view(size=(5,), stride=(2**62,))),
    _case("oob_empty_offset", "empty view, offset outside", lambda: _view(offset=10**6, size=(0,)), "either"),
    _case("oob_rank_mismatch", "len(size) != len(stride)", lambda: _view(size=(2, 2))),
    _case("oob_rank_bomb", "20000 dimensions", lambda: _view(size=(1,) * 20000, stride=(1,) * 20000), "either"),
    _case("oob_size_bool_float", "a float in size", lambda: _strange(size=p.tuple_(p.real(4.0)))),
    _case("oob_size_bool", "a bool in size", lambda: _strange(size=p.tuple_(p.TRUE))),
    _case("expand_bomb", "one element viewed as 4 TiB", lambda: _view(size=(2**40,), stride=(0,)), "either"),
    _case("dtype_alias", "a second dtype needs more bytes", alias),
    _case("oob_numel_next_record", "into the next record", next_record),
]  # fmt: skip

IDS = [
    _case("key_traversal", "a storage key with '..'", lambda: one(p.tensor(p.storage("../data/0")))),
    _case("key_missing", "no such record", lambda: one(p.tensor(p.storage("9")))),
    _case("key_not_str", "an unhashable key", lambda: one(p.tensor(p.storage(p.list_())))),
    _case("loc_weird", "an absurd device", lambda: one(p.tensor(p.storage(location="warp:9\n;rm"))), "loads",
          {"w": [1, 2, 3, 4]}),
    _case("pid_short", "the tuple is too short",
          lambda: _strange(place=p.tuple_(p.text("storage"), p.name("torch", "FloatStorage")) + b"Q")),
    _case("pid_int", "an int", lambda: _strange(place=p.integer(5) + b"Q")),
    _case("pid_text", "the PERSID opcode", lambda: _strange(place=b"P0\n")),
    _case("storage_type_not_storage", "the type is a dict", lambda: one(p.tensor(p.storage(kind=p.dict_())))),
]  # fmt: skip

COMPOUNDS = [
    _case("qtensor_stride_oob", "quantised, stride outside", quantized),
    _case("sparse_index_oob", "COO indices outside the shape", lambda: coo((0, 900), p.FALSE)),
    _case("sparse_coalesced_far", "the same, marked coalesced", lambda: coo((0, 2**40), p.TRUE)),
    _case("sparse_coalesced_neg", "negative, marked coalesced", lambda: coo((-9, 0), p.TRUE)),
    _case("sparse_csr_bad", "CSR pointers outside", csr),
    _case("od_build_shadow", "BUILD shadows methods of an OrderedDict", shadowed, "either", {"w": [1, 2, 3, 4]}),
    _case("meta_huge", "a meta tensor of 4 TiB", meta, "either"),
    _case("tensor_set_build", "Tensor.set_ with an oversize claim", tensor_set),
]

VALUES = [
    _case("setitem_on_tensor", "SETITEM on a tensor", lambda: one(p.tensor() + p.text("a") + p.integer(1) + b"s")),
    _case("setitem_on_storage", "SETITEM on a storage",
          lambda: one(p.tensor(p.storage() + p.integer(0) + p.integer(1) + b"s"))),
    _case("append_on_tuple", "APPEND on a tuple", lambda: one(p.tuple_(p.integer(1)) + p.integer(2) + b"a")),
    _case("appends_on_dict", "APPENDS on a dict", lambda: one(p.dict_() + b"(" + p.integer(2) + b"e")),
    _case("alloc_bytearray", "bytearray(64 GiB)",
          lambda: one(p.call(p.name("builtins", "bytearray"), p.integer(64 << 30)))),
    _case("alloc_untyped_storage", "UntypedStorage(64 GiB)",
          lambda: one(p.call(p.name("torch.storage", "UntypedStorage"), p.integer(64 << 30)))),
    _case("alloc_floattensor", "FloatTensor(2**34)",
          lambda: one(p.call(p.name("torch", "FloatTensor"), p.integer(2**34)))),
    _case("alloc_size_tuple", "torch.Size([])", lambda: one(p.call(p.name("torch", "Size"), p.list_())), "either"),
    _case("param_state_attrs", "'data' and '__class__' as attributes", parameter_state),
    _case("byteorder_bad", "byteorder is 'middle'", lambda: torch_zip(byteorder=b"middle")),
    _case("version_huge", "version 999…", lambda: torch_zip(version=b"9" * 21)),
    _case("version_missing", "no version", lambda: torch_zip(version=None), "either", {"w": [1, 2, 3, 4]}),
    _case("align_bad", ".storage_alignment = 'xyz'", lambda: torch_zip(more=[member(".storage_alignment", b"xyz")]),
          "loads", {"w": [1, 2, 3, 4]}),
    _case("align_huge", "huge, with .format_version",
          lambda: torch_zip(more=[member(".format_version", b"1"), member(".storage_alignment", b"9" * 15)]),
          "loads", {"w": [1, 2, 3, 4]}),
]  # fmt: skip

LEGACY = [
    _case("legacy_numel_mismatch", "the blob says 2**40", lambda: legacy(blobs=struct.pack("<q", 2**40) + FOUR)),
    _case("legacy_numel_neg", "the blob says -4", lambda: legacy(blobs=struct.pack("<q", -4) + FOUR)),
    _case("legacy_key_unknown", "the key list names an unknown storage",
          lambda: legacy(keys=p.pickled(p.list_(p.text("0"), p.text("7"))), blobs=(struct.pack("<q", 4) + FOUR) * 2)),
    _case("legacy_key_missing", "a storage that nothing fills", legacy_unfilled),
    _case("legacy_view_oob", "a view outside the root storage", lambda: legacy_view(3, 4)),
    _case("legacy_keys_twice", "one key twice",
          lambda: legacy(keys=p.pickled(p.list_(p.text("0"), p.text("0"))), blobs=(struct.pack("<q", 4) + FOUR) * 2)),
    _case("legacy_keys_not_list", "the keys are a dict", lambda: legacy(keys=KEYS.replace(b"](", b"}("))),
]  # fmt: skip

CASES = TAR_CASES + CLAIMS + IDS + COMPOUNDS + VALUES + LEGACY
