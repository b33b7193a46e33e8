"""What our torch.save writes is what PyTorch's writes, byte for byte where bytes are not random; and it refuses alike."""

from __future__ import annotations

import io
import pickle
import types
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from statedict.torch import load, save

THEIRS = torch.save


def _trained():
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}


def _tied():
    weight = torch.arange(6.0)
    return {"a": weight, "b": weight, "c": weight[2:4], "d": weight.view(2, 3).t()}


def _attributed():
    tensor = torch.ones(2)
    tensor.note = "kept"
    return tensor


def _looped():
    loop = [torch.ones(2)]
    loop.append(loop)
    return loop


def _hundreds():
    model = nn.ParameterDict({f"w{number}": torch.ones(2, number % 3 + 1) for number in range(300)})
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    views = torch.arange(400.0).split(2)
    return {
        "model": model.state_dict(),
        "parameters": dict(model.named_parameters()),
        "optimizer": optimizer.state_dict(),
        "views": {f"v{number}": view for number, view in enumerate(views)},
        "some odd": {f"w{number}": torch.ones(3)[number % 50 == 9 :] for number in range(200)},
        "again": {f"w{number}": view for number, view in enumerate(views)},
    }


OBJECTS = {
    "tensor": lambda: torch.ones(3),
    "plain": lambda: {"a": torch.arange(4.0), "b": [1, 2, (3, None, True, "x", 1.5)]},
    "state": lambda: nn.Linear(3, 4).state_dict(),
    "module": lambda: nn.Linear(3, 4),
    "trained": _trained,
    "tied": _tied,
    "attributed": _attributed,
    "looped": _looped,
    "slice": lambda: torch.randn(100, 100)[3:5],
    "conj": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "neg": lambda: torch.ones(3, dtype=torch.complex64).conj().imag,
    "grad": lambda: torch.ones(3).requires_grad_(),
    "new_dtype": lambda: [torch.ones(5, dtype=torch.uint16), torch.ones(2).to(torch.float8_e4m3fn)],
    "sparse": lambda: [torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr()],
    "meta": lambda: torch.ones(2, 3, device="meta"),
    "empty": lambda: [torch.ones(0), torch.ones(0, 3), {}, (), []],
    "many": lambda: {index: torch.ones(2) * index for index in range(1200)},
    "hundreds": _hundreds,
    "parameters": lambda: [nn.Parameter(torch.ones(2)), nn.ParameterDict({"a": nn.Parameter(torch.ones(2))})],
    "values": lambda: [torch.float32, torch.device("cpu"), torch.Size([1, 2]), {1, 2}, b"x", OrderedDict(a=1), 1 << 70],
}


def _members(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("options", [{}, {"pickle_protocol": 4}, {"_disable_byteorder_record": True}], ids=str)
def test_archives_have_pytorchs_members(tmp_path, name, options):
    """Names, order, contents and lengths are PyTorch's, at a path; only the id, which it makes of a hash, is ours."""
    obj, path = OBJECTS[name](), tmp_path / "model.v2.pt"
    THEIRS(obj, path, **options)
    theirs = path.read_bytes()
    save(obj, path, **options)
    ours = path.read_bytes()
    expected, found = _members(theirs), _members(ours)
    ident = "model.v2/.data/serialization_id"
    assert len(expected.pop(ident)) == len(found.pop(ident)) == 40
    assert (list(expected.items()), len(theirs)) == (list(found.items()), len(ours))


@pytest.mark.parametrize("name", [name for name in OBJECTS if name not in ("new_dtype", "empty")])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code", "ignore:Sparse CSR tensor support")
def test_legacy_files_are_pytorchs(name):
    """The old format is equal to the last byte."""
    obj, theirs, ours = OBJECTS[name](), io.BytesIO(), io.BytesIO()
    THEIRS(obj, theirs, _use_new_zipfile_serialization=False)
    save(obj, ours, _use_new_zipfile_serialization=False)
    assert theirs.getvalue() == ours.getvalue()


def test_a_storage_is_written_whole_and_once():
    """A slice brings its whole storage, and tensors that share one are written once, as PyTorch's contract is."""
    whole = torch.zeros(1 << 20)
    out = io.BytesIO()
    save([whole[:1], whole[5:6]], out)
    assert 4 << 20 < out.tell() < (4 << 20) + 4096
    first, second = torch.load(io.BytesIO(out.getvalue()))
    assert first.untyped_storage()._cdata == second.untyped_storage()._cdata


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda pair: pair,
        lambda pair: [*pair, types.SimpleNamespace()],
        lambda pair: {f"w{number}": torch.ones(2) for number in range(200)} | dict(zip("ab", pair)),
    ],
    ids=["emit", "pickle", "many"],
)
def test_one_memory_cannot_be_two_dtypes(new, wrap):
    """Tensors of two dtypes over one memory are refused, whichever way the pickle is made."""
    tensor = torch.ones(4)
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        save(wrap([tensor, tensor.view(torch.int32)]), io.BytesIO(), _use_new_zipfile_serialization=new)


def test_what_cannot_be_pickled_leaves_the_old_file(tmp_path):
    """The object is pickled before the file is touched."""
    path = tmp_path / "a.pt"
    save([1], path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        save([torch.ones(2), lambda: None], path)
    assert path.read_bytes() == before


def test_targets_that_are_none_are_refused(tmp_path):
    """Each refusal has PyTorch's type and begins with its words."""
    for target, error, text in [
        (3, AttributeError, "expected 'f' to be string, path, or a file-like object"),
        (types.SimpleNamespace(write=3), TypeError, "has no callable attribute 'write'"),
        (tmp_path / "none" / "a.pt", RuntimeError, "Parent directory .* does not exist"),
        (tmp_path, RuntimeError, "open file failed with strerror: Is a directory"),
        (tmp_path / ".pt", RuntimeError, "invalid file name"),
    ]:
        with pytest.raises(error, match=text):
            save([1], target)


def test_an_old_dill_is_refused():
    """dill knows persistent ids since 0.3.1; a version that cannot be read is given the benefit of the doubt."""
    old = types.SimpleNamespace(__name__="dill", __version__="0.2.9", Pickler=pickle.Pickler)
    with pytest.raises(ValueError, match=r"supports dill >= 0\.3\.1"):
        save([1], io.BytesIO(), pickle_module=old)
    odd = types.SimpleNamespace(__name__="dill", __version__="next", Pickler=pickle.Pickler)
    with pytest.warns(UserWarning, match="malformed"):
        save([1], io.BytesIO(), pickle_module=odd)


def test_another_pickle_module_is_used():
    """Another pickle module's Pickler gets the object, and persistent ids for the storages."""
    seen = []

    class Pickler(pickle.Pickler):
        def dump(self, obj):
            seen.append(obj)
            super().dump(obj)

    module = types.SimpleNamespace(__name__="mine", Pickler=Pickler, Unpickler=pickle.Unpickler, load=pickle.load)
    out = io.BytesIO()
    save({"a": torch.ones(2)}, out, pickle_module=module)
    assert len(seen) == 1
    out.seek(0)
    assert load(out, pickle_module=module)["a"].tolist() == [1, 1]


def test_the_configuration_is_obeyed():
    """Alignment and checksums are as `torch.utils.serialization.config` has them."""
    from torch.utils.serialization import config

    with config.patch({"save.storage_alignment": 4096, "save.compute_crc32": False}):
        out, theirs = io.BytesIO(), io.BytesIO()
        save([torch.ones(3), torch.ones(300_000)], out)
        THEIRS([torch.ones(3), torch.ones(300_000)], theirs)
    with zipfile.ZipFile(out) as archive, zipfile.ZipFile(theirs) as expected:
        assert {each.CRC for each in archive.infolist()} == {0}
        assert [e.header_offset for e in archive.infolist()] == [e.header_offset for e in expected.infolist()]
    assert [each.sum() for each in torch.load(io.BytesIO(out.getvalue()))] == [3, 300_000]


def test_skipped_data_is_room():
    """Under skip_data the file has its full length, and zeros where the elements would be."""
    out, theirs = io.BytesIO(), io.BytesIO()
    with torch.serialization.skip_data():
        save([torch.ones(3), torch.ones(300_000)], out)
        THEIRS([torch.ones(3), torch.ones(300_000)], theirs)
        with pytest.raises(RuntimeError, match="Cannot use skip_data=True"):
            save([1], io.BytesIO(), _use_new_zipfile_serialization=False)
    assert len(out.getvalue()) == len(theirs.getvalue())
    assert [each.sum() for each in torch.load(io.BytesIO(out.getvalue()))] == [0, 0]


def test_fake_tensors_are_materialised_under_skip_data():
    """A model made under FakeTensorMode is saved with the devices that it claims, and loads as a real one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        state = {"weight": torch.empty(4, 3, device="cuda"), "bias": torch.empty(4, device="cuda")}
    out = io.BytesIO()
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        save(state, out)
    loaded = torch.load(io.BytesIO(out.getvalue()), map_location="cpu")
    assert [tuple(each.shape) for each in loaded.values()] == [(4, 3), (4,)]
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(io.BytesIO(out.getvalue()))


@pytest.mark.parametrize("count", [1, 200])
def test_locations_are_asked_of_the_registry(monkeypatch, count):
    """A location that a program registered is written, and its loader asked for it."""
    monkeypatch.setattr(torch.serialization, "_package_registry", list(torch.serialization._package_registry))
    asked = []
    torch.serialization.register_package(
        1, lambda storage: "moon", lambda storage, location: asked.append(location) or storage
    )
    out = io.BytesIO()
    save({f"w{number}": torch.ones(2) for number in range(count)}, out)
    assert b"moon" in out.getvalue()
    out.seek(0)
    assert load(out)["w0"].tolist() == [1, 1]
    assert asked == ["moon"] * count


def test_hooks_are_warned_of():
    """Backward hooks are not saved, and PyTorch says so."""
    tensor = torch.ones(2, requires_grad=True)
    tensor.register_hook(lambda grad: grad)
    with pytest.warns(UserWarning, match="will not be serialized"):
        save(tensor, io.BytesIO())


def test_a_file_object_is_written_from_where_it_stands_and_flushed():
    """Several objects can follow each other in one file, in either format."""

    class Counting(io.BytesIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    for new in (True, False):
        out = Counting(b"before")
        out.seek(6)
        save(torch.ones(2), out, _use_new_zipfile_serialization=new)
        assert out.flushed
        out.seek(6)
        assert torch.load(out).tolist() == [1, 1]
        assert out.getvalue().startswith(b"before")


def test_nothing_is_warned_of_plain_objects():
    """Saving and loading what everybody saves is silent."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(_trained(), out)
        out.seek(0)
        load(out)
