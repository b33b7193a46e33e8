"""Our torch.load gives what PyTorch's gives, of PyTorch's own files, and refuses what it refuses."""

from __future__ import annotations

import gzip
import io
import pickle
import types
import warnings
from collections import Counter, OrderedDict
from datetime import date

import numpy as np
import pytest
import torch
from tests.archives import deflated, packed, unpacked
from torch import nn
from torch.serialization import LoadEndianness, set_default_load_endianness

import statedict
from statedict.torch import load, save
from statedict.torch.save_and_load._load_plain import NOT_PLAIN, load_plain

THEIRS = torch.load
SAVE = torch.save


class Point:
    """A class that no list allows."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and vars(other) == vars(self)

    __hash__ = None


class Marked(torch.Tensor):
    """A subclass of Tensor."""


def _tied():
    weight = torch.arange(6.0)
    return {"a": weight, "b": weight, "c": weight[2:4], "d": weight.view(2, 3).t()}


def _marked():
    tensor = torch.ones(2)
    tensor.note = {"kept": [torch.zeros(1)]}
    return [tensor, nn.Parameter(torch.ones(1), requires_grad=False)]


WEIGHTS = {
    "tensor": lambda: torch.ones(3),
    "plain": lambda: {"a": torch.arange(4.0), "b": [1, 2, (3, None, True, "x", 1.5)], 3: {}, None: -7},
    "state": lambda: nn.BatchNorm1d(4).state_dict(),
    "tied": _tied,
    "attributes": _marked,
    "conj": lambda: [torch.ones(3, dtype=torch.complex64).conj(), torch.ones(2, dtype=torch.complex64).conj().imag],
    "grad": lambda: [torch.ones(3).requires_grad_(), nn.Parameter(torch.ones(2))],
    "new_dtype": lambda: [torch.ones(5, dtype=torch.uint16), torch.ones(2).to(torch.float8_e4m3fn), torch.uint16],
    "sparse": lambda: [torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr()],
    "meta": lambda: torch.ones(2, 3, device="meta"),
    "empty": lambda: [torch.ones(0), torch.ones(0, 3), {}, (), [], OrderedDict()],
    "many": lambda: {index: torch.ones(2) * index for index in range(1200)},
    "values": lambda: [torch.float32, torch.Size([1]), {1}, b"x", bytearray(b"y"), 1 << 70, Counter("aab"), 1j],
    "device": lambda: [torch.device("cpu"), torch.strided],
    "none": lambda: None,
}
OBJECTS = {
    **WEIGHTS,
    "point": lambda: [Point(torch.ones(2))],
    "numpy": lambda: np.arange(3),
    "date": lambda: date.today(),
}


def _facts(value):
    """What there is to know of a value, as something that compares."""
    if isinstance(value, torch.Tensor):
        return _tensor_facts(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        inside = [(key, _facts(each)) for key, each in value.items()]
        return type(value), inside, _facts(getattr(value, "_metadata", None))
    if isinstance(value, (list, tuple)):
        return type(value), [_facts(each) for each in value]
    if isinstance(value, Point):
        return Point, _facts(value.x)
    return type(value), value


def _tensor_facts(value):
    facts = [type(value), value.dtype, value.shape, value.device, value.layout, value.requires_grad, vars(value).keys()]
    if value.layout is torch.strided:
        facts += [value.stride(), value.storage_offset(), value.is_conj(), value.is_neg(), value._backward_hooks]
        facts += [value.untyped_storage().nbytes()]
    elements = value.to_dense() if value.layout is not torch.strided else value.detach().resolve_conj().resolve_neg()
    return facts, None if value.is_meta else elements.to(torch.complex128).tolist()


def _saved(obj, **options):
    out = io.BytesIO()
    SAVE(obj, out, **options)
    return out.getvalue()


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:Validating sparse tensor invariants")
def test_objects_come_back_as_from_pytorch(tmp_path, name, new):
    """Values, types, strides, storages, flags and attributes are PyTorch's, read or mapped, restricted or not."""
    if name == "new_dtype" and not new:
        pytest.skip("PyTorch writes these, and cannot read them again")
    path = tmp_path / "a.pt"
    path.write_bytes(_saved(OBJECTS[name](), _use_new_zipfile_serialization=new))
    for options in [{"weights_only": False}] + [{"weights_only": True}] * (name in WEIGHTS):
        assert _facts(THEIRS(path, **options)) == _facts(load(path, **options))
        with path.open("rb") as file:
            assert _facts(THEIRS(path, **options)) == _facts(load(file, **options))
        if new:
            assert _facts(THEIRS(path, mmap=True, **options)) == _facts(load(path, mmap=True, **options))


def test_quantization_schemes_come_back():
    """Quantization schemes have no module: `statedict.save` names torch's, a pickler the first imported that has them."""
    out = io.BytesIO()
    statedict.save(scheme := torch.per_tensor_affine, out)
    for read in (THEIRS, load):
        out.seek(0)
        assert read(out, weights_only=True) is scheme


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_what_shared_memory_shares_it_again(new):
    """Views of one storage are views of one storage, and one object is one object."""
    loaded = load(io.BytesIO(_saved(_tied(), _use_new_zipfile_serialization=new)))
    assert loaded["a"] is loaded["b"]
    loaded["c"].fill_(9)
    assert loaded["a"].tolist() == [0, 1, 9, 9, 4, 5]
    assert loaded["d"].untyped_storage()._cdata == loaded["a"].untyped_storage()._cdata


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_plain_checkpoints_take_the_short_way():
    """What `load_plain` takes on and what it leaves: nothing that needs a class is its own."""
    from statedict import files
    from statedict.formats.torch_archive import open_zip, read_member

    def taken(obj):
        archive = open_zip(files.open(io.BytesIO(_saved(obj))))
        return load_plain(archive, "archive/data/", read_member(archive, "archive/data.pkl")) is not NOT_PLAIN

    names = ("tensor", "plain", "state", "tied", "grad", "new_dtype", "empty", "many", "none")
    assert [name for name in OBJECTS if taken(OBJECTS[name]())] == [name for name in OBJECTS if name in names]


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_classes_are_refused_until_they_are_allowed(new):
    """A class that is on no list is refused with PyTorch's words, and loaded inside `safe_globals`."""
    raw = _saved([Point(torch.ones(2))], _use_new_zipfile_serialization=new)
    with pytest.raises(pickle.UnpicklingError) as theirs:
        THEIRS(io.BytesIO(raw))
    with pytest.raises(
        pickle.UnpicklingError, match=r"(?s)Weights only load failed.*GLOBAL .*Point was not an allowed"
    ) as ours:
        load(io.BytesIO(raw))
    assert str(theirs.value) == str(ours.value)
    with torch.serialization.safe_globals([Point]):
        assert load(io.BytesIO(raw))[0].x.tolist() == [1, 1]
    with torch.serialization.safe_globals([(Point, f"{Point.__module__}.Point")]):
        assert load(io.BytesIO(raw))[0].x.tolist() == [1, 1]
    with pytest.raises(pickle.UnpicklingError):
        load(io.BytesIO(raw))


def _archive(pickled: bytes, **others: bytes) -> io.BytesIO:
    members = {"data.pkl": pickled, "version": b"3\n", **others}
    return io.BytesIO(packed({f"archive/{name}": content for name, content in members.items()}))


HOSTILE = {
    "call": b"\x80\x02cbuiltins\nprint\nX\x02\x00\x00\x00hi\x85R.",
    "blocked": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.",
    "uncalled": b"\x80\x02X\x02\x00\x00\x00hi)R.",
    "instance": b"\x80\x02N)\x81.",
    "state": b"\x80\x02]}b.",
    "append": b"\x80\x02}K\x01a.",
    "appends": b"\x80\x02}(K\x01e.",
    "setitem": b"\x80\x02]K\x01K\x02s.",
    "setitems": b"\x80\x02](K\x01K\x02u.",
    "persistent": b"\x80\x02K\x01]Q.",
    "module": b"\x80\x02X\x06\x00\x00\x00moduleK\x01\x86Q.",
    "opcode": b"\x80\x02\x8c\x01a\x8c\x01b\x93.",
    "distributed": b"\x80\x02ctorch.distributed.tensor.placement_types\nUnheard\n.",
    "bytes": b"\x80\x02U\x02\xff\xfe.",
    "cut": b"\x80\x02]",
    "no_storage": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_pickles_are_refused_as_pytorch_refuses_them(name):
    """Whatever a pickle tries, type and text of the error are PyTorch's; nothing runs."""
    with pytest.raises(Exception) as theirs:
        THEIRS(_archive(HOSTILE[name]))
    newest = torch.__version__ >= (2, 13)  # 2.7 has other texts, and other errors for three of them
    with pytest.raises((type(theirs.value), *([] if newest else [pickle.UnpicklingError]))) as ours:
        load(_archive(HOSTILE[name]))
    length = 55 if isinstance(theirs.value, RuntimeError) else None
    assert not newest or str(theirs.value)[:length] == str(ours.value)[:length]


def _rewound(file):
    file.seek(0)
    return file


def test_other_protocols_are_warned_of():
    """A pickle of another protocol is tried, and said to be unusual."""
    with pytest.warns(UserWarning, match="Detected pickle protocol 0"):
        assert load(_archive(b"\x80\x00].")) == []


def test_bytes_of_python_2_are_decoded_as_asked():
    """`encoding` is the unpickler's; PyTorch warns where it does not apply."""
    file = _archive(b"\x80\x02U\x02\xe9a.")
    assert load(_rewound(file), weights_only=False, encoding="latin1") == "éa"
    assert load(_rewound(file), weights_only=False, encoding="bytes") == b"\xe9a"
    with pytest.warns(UserWarning, match="pickle_load_args only works"):
        assert load(_rewound(file), encoding="bytes") == b"\xe9a"


def test_the_environment_decides(monkeypatch):
    """One variable forces restricted loads, the other forbids them where nothing was asked; both are an error."""
    raw = _saved([Point(1)])
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.warns(UserWarning, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD detected"):
        assert load(io.BytesIO(raw)) == [Point(1)]
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        load(io.BytesIO(raw), weights_only=True)
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "yes")
    with pytest.raises(RuntimeError, match="Only one of"):
        load(io.BytesIO(raw))
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        load(io.BytesIO(raw), weights_only=False)


def test_a_pickle_module_needs_trust():
    """With a pickle module of the caller's nothing is restricted, and it cannot be asked for."""
    raw = _saved([Point(1)])
    assert load(io.BytesIO(raw), pickle_module=pickle) == [Point(1)]
    with pytest.raises(RuntimeError, match="explicit pickle_module"):
        load(io.BytesIO(raw), pickle_module=pickle, weights_only=True)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_storages_go_where_the_caller_wants_them(new):
    """A device, a mapping and a function each say where storages go; an unknown location is an error."""
    raw = _saved([torch.ones(2), torch.ones(3)], _use_new_zipfile_serialization=new)
    for where in ("meta", torch.device("meta"), {"cpu": "meta"}):
        assert [each.device.type for each in load(io.BytesIO(raw), where)] == ["meta"] * 2
    asked = []
    assert load(io.BytesIO(raw), lambda storage, location: asked.append((storage.nbytes(), location)))[0].sum() == 2
    assert asked == [(8, "cpu"), (12, "cpu")]
    with pytest.raises(RuntimeError, match=r"don't know how to restore data location of .* \(tagged with nowhere\)"):
        load(io.BytesIO(raw), "nowhere")
    assert torch.serialization._serialization_tls.map_location is None


def test_fake_tensors_know_where_their_bytes_are(tmp_path):
    """Under FakeTensorMode and on meta nothing is read; each storage tells its place in the file."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    path = tmp_path / "a.pt"
    SAVE([torch.arange(4.0)], path)
    with FakeTensorMode():
        fake = load(path)[0]
    meta = load(path, "meta")[0]
    offset = fake.untyped_storage()._checkpoint_offset
    assert offset == meta.untyped_storage()._checkpoint_offset
    assert path.read_bytes()[offset : offset + 16] == torch.arange(4.0).numpy().tobytes()


def test_skipped_data_is_not_read():
    """Under skip_data tensors have their shapes, and whatever was in memory."""
    with torch.serialization.skip_data():
        assert load(io.BytesIO(_saved([torch.ones(3)])))[0].shape == (3,)


def _with_order(obj, order):
    members = unpacked(_saved(obj))
    del members["archive/byteorder"]
    data = {
        name: np.frombuffer(raw, "<f4").astype(">f4").tobytes() for name, raw in members.items() if "/data/" in name
    }
    return io.BytesIO(packed(members | data | ({} if order is None else {"archive/byteorder": order})))


def test_the_other_byte_order_is_turned():
    """The file says its byte order; where it does not, the caller's default does."""
    obj = [torch.tensor([1.0, 2.5])]
    assert load(_with_order(obj, b"big"))[0].tolist() == [1, 2.5]
    set_default_load_endianness(LoadEndianness.BIG)
    try:
        assert load(_with_order(obj, None))[0].tolist() == [1, 2.5]
    finally:
        set_default_load_endianness(None)
    assert load(_with_order(obj, None))[0].tolist() != [1, 2.5]
    with pytest.raises(ValueError, match="Unknown endianness type: middle"):
        load(_with_order(obj, b"middle"))


def test_scripts_are_given_to_torchscript(tmp_path):
    """A TorchScript archive is loaded by torch.jit with a warning, and refused where only weights are wanted."""
    path = tmp_path / "script.pt"
    with warnings.catch_warnings(action="ignore"):  # PyTorch 2.7 does not say yet that torch.jit is deprecated
        torch.jit.script(nn.Linear(2, 2)).save(path)
    with (
        pytest.warns(UserWarning, match="dispatching to 'torch.jit.load'"),
        pytest.raises(RuntimeError, match="TorchScript"),
    ):
        load(path)
    with pytest.warns((UserWarning, DeprecationWarning, FutureWarning)):
        assert load(path, weights_only=False).weight.shape == (2, 2)


@pytest.mark.skipif(torch.__version__ < (2, 13), reason="PyTorch 2.7 does not read safetensors")
def test_safetensors_are_known_by_their_suffix(tmp_path):
    """Their tensors come by name, on the device asked for; a mapping or function of locations is refused."""
    import statedict

    pytest.importorskip("safetensors", reason="torch.load needs it")
    path = tmp_path / "a.safetensors"
    statedict.save({"b": torch.ones(2), "a": torch.zeros(1, dtype=torch.bfloat16)}, path)
    loaded, expected = load(path), THEIRS(path)
    assert {name: _facts(each)[1] for name, each in loaded.items()} == {n: _facts(e)[1] for n, e in expected.items()}
    assert load(path, torch.device("meta"))["a"].is_meta
    for where, kind in (({"cpu": "meta"}, "dict"), (lambda storage, location: storage, "callable")):
        with pytest.raises(RuntimeError, match=f"with {kind} map_location is not supported"):
            load(path, where)


def test_files_that_cannot_be_mapped_are_refused(tmp_path):
    """Mapping is refused for file objects, legacy files and deflated members."""
    path = tmp_path / "a.pt"
    SAVE([torch.ones(100)], path)
    with path.open("rb") as file, pytest.raises(ValueError, match="f must be a file path"):
        load(file, mmap=True)
    path.write_bytes(deflated(path))
    assert load(path)[0].sum() == 100
    with pytest.raises(RuntimeError, match="compressed in the file"):
        load(path, mmap=True)
    SAVE([torch.ones(100)], path, _use_new_zipfile_serialization=False)
    with pytest.raises(RuntimeError, match="mmap can only be used with files saved with"):
        load(str(path), mmap=True)


def test_mapped_changes_stay_here(tmp_path):
    """A mapped tensor can be written to, and the file stays as it is."""
    path = tmp_path / "a.pt"
    SAVE([torch.ones(100)], path)
    before = path.read_bytes()
    load(path, mmap=True)[0].zero_()
    assert path.read_bytes() == before


def test_damage_is_an_error(tmp_path):
    """A cut or empty file, a missing or short record, and a file that is something else raise as in PyTorch."""
    raw = _saved([torch.ones(100)])
    with pytest.raises(RuntimeError, match="PytorchStreamReader failed reading zip archive"):
        load(io.BytesIO(raw[:-300]))
    with pytest.raises(EOFError):
        load(io.BytesIO())
    with pytest.raises(RuntimeError, match=r"PytorchStreamReader failed locating file data\.pkl"):
        load(_without("data.pkl", raw))
    with pytest.raises(RuntimeError, match="PytorchStreamReader failed locating file data/0"):
        load(_without("data/0", raw))
    with pytest.raises(pickle.UnpicklingError, match="Unsupported operand 60"):
        load(io.BytesIO(b"<html>"))
    with pytest.raises(RuntimeError, match="Invalid magic number"):
        load(io.BytesIO(pickle.dumps(3, 2)))
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pt")
    legacy = _saved([torch.ones(100)], _use_new_zipfile_serialization=False)
    with pytest.raises(RuntimeError, match="unexpected EOF, expected"):
        load(io.BytesIO(legacy[:-30]))


def _without(member, raw):
    members = unpacked(raw)
    del members[f"archive/{member}"]
    return io.BytesIO(packed(members))


def test_file_objects_are_read_from_where_they_stand(tmp_path):
    """Legacy files can follow each other; any seekable object serves, compressed ones too; others are told why not."""
    many = io.BytesIO()
    for value in (1.0, 2.0):
        SAVE([torch.tensor(value)], many, _use_new_zipfile_serialization=False)
    many.seek(0)
    assert [load(many)[0].item(), load(many)[0].item()] == [1, 2]
    path = tmp_path / "a.pt.gz"
    for new in (True, False):
        with gzip.open(path, "wb") as file:
            SAVE([torch.ones(3)], file, _use_new_zipfile_serialization=new)
        with gzip.open(path, "rb") as file:
            assert load(file)[0].sum() == 3
    with pytest.raises(AttributeError, match=r"You can only torch\.load from a file that is seekable"):
        load(types.SimpleNamespace(read=many.read))


def test_sources_of_modules_are_compared():
    """The old format keeps the source of a module's class; one that differs is warned of."""
    raw = _saved(nn.Linear(2, 2), _use_new_zipfile_serialization=False)
    assert load(io.BytesIO(raw), weights_only=False).weight.shape == (2, 2)
    changed = raw.replace(b"in_features: int", b"in_fsatures: int")
    assert changed != raw
    with pytest.warns(torch.serialization.SourceChangeWarning, match="source code of class"):
        load(io.BytesIO(changed), weights_only=False)


def test_installed_they_are_pytorchs():
    """`install()` puts both under PyTorch's names, where torch's own modules find them too."""
    from statedict.torch import install

    with install():
        assert torch.save is torch.serialization.save is save
        assert torch.load is torch.serialization.load is load
        storage = pickle.loads(pickle.dumps(torch.ones(3)))
        assert storage.sum() == 3
    assert torch.save is SAVE
    assert torch.load is THEIRS


@pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter extracted tar")
def test_tars_are_read_where_they_may_run_code(tmp_path):
    """PyTorch's oldest files come back as from PyTorch, and are refused where only weights are wanted."""
    from tests.hostile.build import streams

    path = tmp_path / "old.pt"
    path.write_bytes(streams.tar())
    assert _facts(THEIRS(path, weights_only=False)) == _facts(load(path, weights_only=False))
    with pytest.raises(RuntimeError, match=r"files saved in the legacy \.tar format"):
        load(path)
