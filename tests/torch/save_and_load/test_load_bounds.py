"""`statedict.torch.load` gives no memory that the file does not fill: where sizes lie in the file, it raises."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.hostile.build import pickles as p
from tests.hostile.build import streams
from tests.hostile.build.torch_zips import torch_zip

import statedict.torch
from statedict.torch.tensors._storages import unvalidated

HERE = p.storage("0", 4)
MANY, ONE = p.integers((1000,)), p.integers((1,))
NO_HOOKS = p.ordered_dict()
STORED = {"0": struct.pack("<4f", 1, 2, 3, 4), "1": b"", "2": struct.pack("<2q", 0, 10**9)}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "anything": {"weights_only": False},
    "mapped": {"mmap": True},
    "mapped, anything": {"mmap": True, "weights_only": False},
    "a device's name": {"map_location": "cpu"},
    "a device": {"map_location": torch.device("cpu"), "weights_only": False},
    "a mapping": {"map_location": {"cpu": "cpu"}},
    "a function": {"map_location": lambda storage, location: storage},
    "a function that copies": {"map_location": lambda storage, location: storage.clone()},
}


def rebuilt(
    place: bytes = HERE, offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)
) -> bytes:
    return p.rebuilt(place, p.integer(offset), p.integers(size), p.integers(stride))


def function(name: str, *args: bytes) -> bytes:
    return p.call(p.name("torch._utils", name), *args)


LAYOUT = p.call(p.name("torch.serialization", "_get_layout"), p.text("torch.sparse_coo"))
EMPTY = p.storage("1", 0)
QUANTISATION = p.tuple_(p.name("torch", "per_tensor_affine"), p.real(1.0), p.integer(0))


def quantised(size: int) -> bytes:
    place = p.storage("0", 16, "QUInt8Storage")
    return function("_rebuild_qtensor", place, p.integer(0), p.integers((size,)), ONE, QUANTISATION, p.FALSE, NO_HOOKS)


# Of each the value that the pickle holds; torch.load refuses all of them.
LIES = {
    "sizes": rebuilt(size=(1000,)),
    "an offset": rebuilt(offset=1),
    "strides": rebuilt(size=(2, 2), stride=(1000, 1)),
    "a negative stride": rebuilt(size=(2,), stride=(-3,)),
    "a negative offset": rebuilt(size=(2,), offset=-2),
    "a product that overflows": rebuilt(size=(1 << 62, 4), stride=(4, 1)),
    "a reach that overflows": rebuilt(size=(3,), stride=(1 << 62,)),
    "the oldest function": function("_rebuild_tensor", HERE, p.integer(0), MANY, ONE),
    "a wider dtype": function(
        "_rebuild_tensor_v3", HERE, p.integer(0), p.integers((4,)), ONE, p.FALSE, NO_HOOKS, p.name("torch", "float64")
    ),
    "a parameter": function("_rebuild_parameter", rebuilt(size=(1000,)), p.TRUE, NO_HOOKS),
    "an attribute of a parameter": function(
        "_rebuild_parameter_with_state", rebuilt(), p.TRUE, NO_HOOKS, p.dict_((p.text("data"), rebuilt(size=(1000,))))
    ),
    "a tensor that is set": p.build(rebuilt(), p.tuple_(HERE, p.integer(0), MANY, ONE)),
    "an empty tensor that is set": p.build(
        p.name("torch", "FloatTensor") + b")\x81", p.tuple_(HERE, p.integer(0), MANY, ONE)
    ),
    "a storage without bytes": rebuilt(EMPTY, size=(1000,)),
    "a storage without bytes, again": p.list_(rebuilt(EMPTY, size=(0,)), rebuilt(EMPTY, size=(1000,))),
    "a longer storage": rebuilt(p.storage("0", 1000), size=(1000,)),
    "a quantised tensor": quantised(1000),
    "another device": function(
        "_rebuild_device_tensor_from_cpu_tensor",
        rebuilt(size=(1000,)),
        p.name("torch", "float32"),
        p.text("cpu"),
        p.FALSE,
    ),
}
# PyTorch 2.7 gives memory for these that is not the tensor's; 2.13 refuses them.
UNCHECKED = ("a longer storage", "a quantised tensor") if torch.__version__ < (2, 13) else ()


def tried(load: Callable[..., Any], source: Any, **options: Any) -> Any:
    """What `load` gives, or the error that it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return load(source, **options)
        except Exception as error:
            return error


@pytest.mark.parametrize("way", OPTIONS)
@pytest.mark.parametrize("lie", LIES)
def test_sizes_that_lie_are_refused(tmp_path, lie, way):
    """What torch.load refuses is refused with an error of the same type, whatever the options; a function may give storages
    that could be resized."""
    path = tmp_path / "x.pt"
    path.write_bytes(torch_zip(p.pickled(p.dict_((p.text("w"), LIES[lie]))), STORED))
    theirs, ours = (tried(load, path, **OPTIONS[way]) for load in (torch.load, statedict.torch.load))
    assert type(ours) is (type(theirs) if isinstance(theirs, Exception) else RuntimeError), ours
    assert isinstance(theirs, Exception) or way == "a function that copies" or lie in UNCHECKED
    if lie in ("sizes", "strides", "a parameter", "a storage without bytes"):
        assert str(ours).startswith("Trying to resize storage that is not resizable")
    with statedict.torch.install():
        assert type(tried(torch.load, path, **OPTIONS[way])) is type(ours)


def test_a_tensor_beyond_its_storage_is_an_answer(monkeypatch):
    """Our own reader's error of a tensor's bounds is raised as it is: with file, place and numbers, and no other reader."""
    from statedict.torch.save_and_load import _load_archive

    monkeypatch.delattr(_load_archive, "LoadedStorages")
    raw = torch_zip(p.pickled(p.dict_((p.text("w"), LIES["sizes"]))), STORED)
    with pytest.raises(
        RuntimeError,
        match=r"not resizable. <BytesIO>: data.pkl at byte \d+: the file describes an invalid tensor: it reaches 4,000 ",
    ):
        statedict.torch.load(io.BytesIO(raw))


SPARSE = function("_rebuild_sparse_tensor", LAYOUT, p.tuple_(
    rebuilt(p.storage("2", 2, "LongStorage"), size=(1, 2), stride=(2, 1)), rebuilt(size=(2,)), p.integers((3,))
))  # fmt: skip
SPARSE_CLASS = p.name("torch.sparse", "FloatTensor")
SPARSE_PARTS = p.tuple_(
    rebuilt(p.storage("2", 2, "LongStorage"), size=(1, 2), stride=(2, 1)),
    rebuilt(size=(2,)),
    p.call(p.name("torch", "Size"), p.integers((3,))),
)
HUNDRED = p.tuple_(p.integer(100))
TYPED, UNTYPED = p.name("torch.storage", "TypedStorage"), p.name("torch.storage", "UntypedStorage")
DENSE = p.name("torch", "FloatTensor")
NEW = DENSE + b")R"
# What torch.load allows in a restricted load, and gives memory for that nothing has filled, or that is not the tensor's.
MADE = {
    "a tensor class": DENSE + HUNDRED + b"R",
    "a tensor class, new": DENSE + HUNDRED + b"\x81",
    "Tensor": p.name("torch", "Tensor") + HUNDRED + b"R",
    "a typed storage": TYPED + HUNDRED + b"R",
    "an untyped storage": UNTYPED + HUNDRED + b"R",
    "an untyped storage, new": UNTYPED + HUNDRED + b"\x81",
    "a tensor in a typed storage": rebuilt(TYPED + HUNDRED + b"R", size=(100,)),
    "by way of another function": p.call(
        p.name("torch._tensor", "_rebuild_from_type_v2"),
        p.name("torch._tensor", "_rebuild_from_type_v2"),
        p.name("torch", "Tensor"),
        p.tuple_(DENSE, p.name("torch", "Tensor"), HUNDRED, p.dict_()),
        p.dict_(),
    ),
    "a sparse tensor": SPARSE,
    "a sparse tensor's class": SPARSE_CLASS + SPARSE_PARTS + b"R",
    "a sparse tensor's class, by way of another function": p.call(
        p.name("torch._tensor", "_rebuild_from_type_v2"),
        SPARSE_CLASS,
        p.name("torch", "Tensor"),
        SPARSE_PARTS,
        p.dict_(),
    ),
    "a tensor that enlarges another": p.build(NEW, p.tuple_(DENSE + b")R", p.integer(0), MANY, ONE)),
    "a parameter that enlarges another": p.build(
        function("_rebuild_parameter", rebuilt(), p.FALSE, NO_HOOKS), p.tuple_(NEW, p.integer(0), MANY, ONE)
    ),
}


@pytest.mark.parametrize("what", MADE)
def test_memory_that_nothing_fills_is_refused(what):
    """A pickle cannot have memory made, enlarged, or looked at beyond its end, by what PyTorch's list allows."""
    raw = torch_zip(p.pickled(MADE[what]), STORED)
    theirs = tried(torch.load, io.BytesIO(raw))  # since 2.15 it validates sparse tensors too
    assert not isinstance(theirs, Exception) or "inconsistent" in str(theirs)
    ours = tried(statedict.torch.load, io.BytesIO(raw))
    expected = "called, which would allocate memory|not resizable|size is inconsistent with indices"
    assert isinstance(ours, (RuntimeError, pickle.UnpicklingError)), ours
    with pytest.raises(type(ours), match=expected):
        raise ours
    assert not unvalidated()


def test_a_quantised_tensor_that_is_set_stays_in_its_storage():
    """Setting a quantised tensor's storage, offset and shape afterwards cannot make it longer than the storage."""
    value = p.build(quantised(4), p.tuple_(p.storage("0", 16, "QUInt8Storage"), p.integer(0), MANY, ONE))
    with pytest.raises(RuntimeError, match=r"not resizable|out of bounds"):
        statedict.torch.load(io.BytesIO(torch_zip(p.pickled(value), STORED)))


def test_an_empty_tensor_may_still_be_made():
    """What files before 1.0 hold: a tensor of no elements, which is then set."""
    value = p.build(NEW, p.tuple_(HERE, p.integer(1), p.integers((2,)), ONE))
    loaded = statedict.torch.load(io.BytesIO(torch_zip(p.pickled(value), STORED)))
    assert loaded.tolist() == [2.0, 3.0]


PLACE = p.storage("0", 4, "FloatStorage", "cpu", p.NONE)
VIEW = p.storage("0", 4, "FloatStorage", "cpu", p.tuple_(p.text("v"), p.integer(0), p.integer(2)))
NONE_LEFT = p.storage("1", 0, "FloatStorage", "cpu", p.NONE)
BLOB = struct.pack("<q4f", 4, 1, 2, 3, 4)
LEGACY = {
    "sizes": streams.legacy(p.pickled(rebuilt(PLACE, size=(1000,))), BLOB),
    "sizes, with the bytes": streams.legacy(
        p.pickled(rebuilt(PLACE, size=(1000,))), struct.pack("<q", 1000) + bytes(4000)
    ),
    "a missing key": streams.legacy(p.pickled(rebuilt(PLACE)), b"", keys=p.pickled(b"]")),
    "a view's key": streams.legacy(
        p.pickled(rebuilt(VIEW, size=(2,))), struct.pack("<q2f", 2, 1, 2), keys=p.pickled(p.list_(p.text("v")))
    ),
    "a storage without bytes, again": streams.legacy(
        p.pickled(p.list_(rebuilt(NONE_LEFT, size=(0,)), rebuilt(NONE_LEFT, size=(1000,)))),
        struct.pack("<q", 0),
        keys=p.pickled(p.list_(p.text("1"))),
    ),
}


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("where", [None, "cpu", lambda storage, location: storage.clone()])
@pytest.mark.parametrize("lie", LEGACY)
def test_legacy_files_that_lie_are_refused(lie, where, weights_only):
    """A storage that a legacy file does not fill, or that a tensor would enlarge, is an error."""
    ours = tried(statedict.torch.load, io.BytesIO(LEGACY[lie]), map_location=where, weights_only=weights_only)
    assert isinstance(ours, RuntimeError), ours
    with pytest.raises(RuntimeError, match=r"not resizable|the file has no data for 1 of its storages \('0'\)"):
        raise ours


@pytest.mark.parametrize("where", [None, "cpu", lambda storage, location: storage])
def test_tars_that_lie_are_refused(where):
    """A tensor of a tar that reaches beyond its storage is an error."""
    raw = streams.tar(tensors=p.pickled(p.integer(1)) + streams.tar_tensor(1000))
    with pytest.raises(RuntimeError, match=r"not resizable\. .*it reaches 4,000 bytes into a storage of 16"):
        statedict.torch.load(io.BytesIO(raw), weights_only=False, map_location=where)
    with pytest.raises(RuntimeError, match="not resizable"):
        statedict.torch.load(
            io.BytesIO(streams.tar()), weights_only=False, map_location=lambda s, _: torch.UntypedStorage(0)
        )
