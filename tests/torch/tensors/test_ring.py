"""Between files and CUDA devices: what is read, queued and waited for; on a stand-in where there is no device."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

import statedict
from statedict.errors import ChecksumError
from statedict.state import Leaf, library
from statedict.torch.modules import _load_sound as _sound
from statedict.torch.tensors import _placement, _ring
from statedict.torch.tensors._library import TorchLibrary
from statedict.torch.tensors._memory import LiveMemory

FLOATS = _ring.SLOT // 4


class Streams:
    """Stands for `torch.cuda`: copies are made at once, and what is asked for is noted, in order.

    A buffer that is filled before the device has fetched it is an error, as it would be there.
    """

    def __init__(self):
        self.log = []
        self.lock = threading.Lock()

    def note(self, what):
        with self.lock:
            self.log.append(what)

    def Stream(self, device):
        return SimpleNamespace(
            wait_stream=lambda other: self.note(f"wait for {other}"), synchronize=lambda: self.note("synchronize")
        )

    def current_stream(self, device):
        return "model's"

    @contextmanager
    def stream(self, stream):
        yield

    def Event(self):
        return SimpleNamespace(record=lambda stream: self.note("record"), synchronize=lambda: self.note("fetched"))


@pytest.fixture
def streams(monkeypatch):
    """No device: buffers are ordinary memory, and the streams are watched."""
    made = Streams()
    monkeypatch.setattr(_ring, "CUDA", made)
    monkeypatch.setattr(_ring, "pinned", lambda nbytes: torch.empty(nbytes, dtype=torch.uint8))
    return made


def leaves_of(values, path):
    """The leaves of tensors that were saved, and their file, which must stay open."""
    statedict.save({str(n): value for n, value in enumerate(values)}, path)
    checkpoint = statedict.open(path)
    state = checkpoint.state_dict()
    return [state.leaf(name) for name in state], checkpoint


def test_tensors_of_all_sizes_are_filled(streams, tmp_path):
    """Smaller than a buffer, as large, several times as large, and cast: every element arrives, behind the model's work."""
    values = [torch.randn(n) for n in (1, 7, FLOATS, FLOATS + 1, 3 * FLOATS - 5, 40)] + [
        torch.arange(90).reshape(9, 10)
    ]
    leaves, checkpoint = leaves_of(values, tmp_path / "model.pt")
    tensors = [torch.zeros_like(value) for value in values[:-1]] + [torch.zeros(9, 10, dtype=torch.float16)]
    with checkpoint:
        _ring.send(tensors, leaves)
    for tensor, value in zip(tensors, values):
        assert torch.equal(tensor, value.to(tensor.dtype))
    assert streams.log[0] == "wait for model's"
    assert streams.log[-1] == "synchronize"
    assert streams.log.count("record") == streams.log.count("fetched") > len(values) // 2


def test_many_small_tensors_share_a_buffer(streams, tmp_path):
    """A thousand small tensors are a few transfers, not a thousand readings."""
    values = [torch.full((4, 4), float(n)) for n in range(1000)]
    leaves, checkpoint = leaves_of(values, tmp_path / "model.pt")
    tensors = [torch.zeros(4, 4) for _ in values]
    with checkpoint:
        _ring.send(tensors, leaves)
    assert all(map(torch.equal, tensors, values))
    assert streams.log.count("record") == 1


def test_views_of_one_storage_are_filled(streams, tmp_path):
    """Leaves that begin within a storage, and tensors that are parts of others, get their own elements."""
    whole = torch.arange(3000.0)
    leaves, checkpoint = leaves_of([whole[100:400], whole[1000:3000].view(20, 100)], tmp_path / "model.pt")
    into = torch.zeros(5000)
    with checkpoint:
        _ring.send([into[:300], into[1000:3000].view(20, 100)], leaves)
    assert torch.equal(into[:300], whole[100:400])
    assert torch.equal(into[1000:3000], whole[1000:])
    assert not into[300:1000].any()


def test_no_more_memory_than_the_buffers(streams, tmp_path, monkeypatch):
    """However large the tensors are, the buffers are all that is needed beside them."""
    asked = []
    monkeypatch.setattr(_ring, "pinned", lambda nbytes: asked.append(nbytes) or torch.empty(nbytes, dtype=torch.uint8))
    leaves, checkpoint = leaves_of([torch.zeros(20 * FLOATS)], tmp_path / "model.pt")
    with checkpoint:
        _ring.send([torch.ones(20 * FLOATS)], leaves)
    assert asked == [_ring.SLOTS * _ring.SLOT]


def test_an_error_of_reading_waits_for_what_is_under_way(streams):
    """Reading fails: the error comes when the device is done with the buffers."""

    class Broken:
        def read_into(self, reads, *, verify=True):
            raise OSError("the disk is gone")

    leaf = library("torch").leaf(torch.zeros(5 * FLOATS))
    leaf.storage.source = Broken()
    with pytest.raises(OSError, match="the disk is gone"):
        _ring.send([torch.zeros(5 * FLOATS)], [Leaf(leaf.spec, leaf.storage)])
    assert streams.log[-1] == "synchronize"


@pytest.mark.parametrize("count", [0, 1, _ring.SLOT, _ring.SLOT + 1, 3 * _ring.SLOT])
def test_bytes_are_fetched_in_order_one_piece_ahead(streams, count):
    """The pieces are the bytes in order, each in memory of its own; the next is under way before one is waited for."""
    flat = torch.randint(256, (count,), dtype=torch.uint8)
    pieces = list(_ring.fetch(flat))
    assert b"".join(pieces) == flat.numpy().tobytes()
    assert streams.log[0] == "wait for model's"
    if count > _ring.SLOT:
        assert streams.log[1:4] == ["record", "record", "fetched"]


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_memory_that_cannot_be_seen_is_saved_piece_by_piece(tmp_path, monkeypatch, format):
    """Tensors of a device are streamed into the file: those of several pieces, parts of others, and empty ones."""
    whole = torch.randn(3 * FLOATS)
    state = {
        "whole": torch.randn(2 * FLOATS + 1),
        "part": whole[5 : FLOATS + 9],
        "none": torch.zeros(0),
        "few": whole[:3],
    }
    monkeypatch.setattr(LiveMemory, "view", lambda self, storage, *, writable=False: None)
    monkeypatch.setattr(TorchLibrary, "table", lambda self, arrays: None)
    statedict.save(state, tmp_path / "model", format=format)
    found = statedict.load(tmp_path / "model")
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.fixture
def sent(streams, monkeypatch):
    """What goes through the ring, where tensors of the CPU do."""
    tensors = []
    send = _ring.send
    monkeypatch.setattr(_ring, "reaches", lambda device: True)
    for room in (_ring, _placement):
        monkeypatch.setattr(room, "send", lambda some, leaves: tensors.extend(some) or send(some, leaves))
    monkeypatch.setattr(_placement, "reaches", lambda device: True)
    return tensors


def test_models_on_a_device_are_filled_through_the_ring(sent, tmp_path, monkeypatch):
    """Every run of elements goes through the ring, cast or not; the rest is copied as without it."""
    torch.manual_seed(0)
    model = torch.nn.ParameterDict(
        {"a": torch.randn(700, 800), "b": torch.randn(3), "c": torch.randn(4, 5), "d": torch.zeros(0)}
    )
    statedict.save(model, tmp_path / "model.pt")
    target = torch.nn.ParameterDict(
        {"a": torch.zeros(700, 800), "b": torch.zeros(3).double(), "c": torch.zeros(5, 4).T}
    )
    target["d"] = torch.zeros(0)
    # Straight into memory only the CPU's tensors are read.
    monkeypatch.setattr(_sound, "is_direct", lambda tensor, value: False)
    monkeypatch.setattr(_sound, "are_direct", lambda tensors, values, *more: False)
    statedict.load_state_dict(target, tmp_path / "model.pt")
    assert all(torch.equal(target[name], value.to(target[name].dtype)) for name, value in model.items())
    assert sorted(map(len, sent)) == [3, 700]


@pytest.mark.parametrize("verify", [True, False])
def test_files_are_loaded_onto_a_device_through_the_ring(sent, tmp_path, verify):
    """Each storage goes once, and tensors that share one still do; parameters, views and strides are what they were."""
    whole = torch.randn(900, 1000)
    state = {
        "whole": whole,
        "part": whole[3:5],
        "turned": whole.T,
        "none": torch.zeros(0, 3),
        "flags": torch.ones(3) > 0,
    }
    state |= {
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "sparse": torch.eye(3).to_sparse(),
        "z": torch.ones(2) * 1j,
    }
    statedict.save(state, tmp_path / "state.pt")
    found = statedict.load(tmp_path / "state.pt", map_location="cpu:0", verify=verify)
    assert all(torch.equal(found[name].to_dense(), value.to_dense()) for name, value in state.items())
    assert all(found[name].stride() == state[name].stride() for name in ("whole", "part", "turned"))
    assert len({found[name].untyped_storage().data_ptr() for name in ("whole", "part", "turned")}) == 1
    assert isinstance(found["parameter"], torch.nn.Parameter)
    assert len(sent) == 4


def test_damage_is_found_before_anything_is_sent(sent, tmp_path):
    """A wrong checksum is an error before the device is asked for anything."""
    path = tmp_path / "state.pt"
    statedict.save({"weight": torch.arange(3 * FLOATS)}, path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ChecksumError, match=r"state\.pt"):
        statedict.load(path, map_location="cpu:0")
    assert not sent


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.cuda
@needs_cuda
def test_a_device_gets_what_the_file_has(tmp_path):
    """Tensors of several megabytes go through the ring to a device and back."""
    values = [torch.randn(n) for n in (3, FLOATS, 5 * FLOATS + 3)] + [torch.arange(90)]
    leaves, checkpoint = leaves_of(values, tmp_path / "model.pt")
    tensors = [torch.zeros_like(value, device="cuda") for value in values[:-1]]
    tensors.append(torch.zeros(90, dtype=torch.float16, device="cuda"))
    with checkpoint:
        _ring.send(tensors, leaves)
    for tensor, value in zip(tensors, values):
        assert torch.equal(tensor.cpu(), value.to(tensor.dtype))
    assert b"".join(_ring.fetch(tensors[2].view(torch.uint8))) == values[2].numpy().tobytes()


@pytest.mark.cuda
@needs_cuda
def test_a_device_s_model_goes_to_a_file_and_back(tmp_path):
    """A CUDA model is saved and loaded, into place and fresh, with its ties."""
    model = torch.nn.Sequential(torch.nn.Linear(2000, 2000), torch.nn.Linear(2000, 2000)).cuda()
    model[1].weight = model[0].weight
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    statedict.save(model, tmp_path / "model.pt")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    statedict.load_state_dict(model, tmp_path / "model.pt")
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    found = statedict.load(tmp_path / "model.pt")
    assert all(value.is_cuda and torch.equal(value, kept[name]) for name, value in found.items())
    assert found["0.weight"].data_ptr() == found["1.weight"].data_ptr()
