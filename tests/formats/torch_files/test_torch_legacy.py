"""torch.save's files before 1.6, the older tar files, and plain pickles."""

import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from tests.hostile.build import pickles, streams

from statedict import formats
from statedict.errors import FormatError, TruncatedError
from statedict.formats import Limits
from statedict.formats.torch_files import _stacked_pickles as _stacked
from statedict.state import Leaf, library, materialize, read_array

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")

UNCHECKED = "the file has no checksums: damage to its tensors cannot be detected"


def saved(obj, **options):
    out = io.BytesIO()
    torch.save(obj, out, _use_new_zipfile_serialization=False, **options)
    return out.getvalue()


def opened(raw, **options):
    return formats.open(io.BytesIO(raw), **options)


def loaded(state):
    return dict(zip(state, materialize(list(state.values()), library("torch"))))


def state():
    base = torch.randn(100)
    return {
        "head": base[:10],
        "inner": base[5:20],
        "turned": torch.randn(3, 4).t(),
        "half": torch.randn(3).half(),
        "bfloat": torch.ones(3, dtype=torch.bfloat16),
        "complex": torch.randn(2, dtype=torch.complex64),
        "flag": torch.tensor([True, False]),
        "long": torch.arange(3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 2),
        "large": torch.randn(300_000),
    }


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_what_torch_writes_is_read(protocol):
    """Every tensor comes out as torch.load gives it, strides and shared storages included, whatever the protocol."""
    raw = saved(state(), pickle_protocol=protocol)
    checkpoint = opened(raw)
    assert (checkpoint.format, checkpoint.notes) == ("torch-legacy", [UNCHECKED])
    found, expected = loaded(checkpoint.object), torch.load(io.BytesIO(raw), weights_only=False)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride())
        assert found[name].equal(tensor)
    assert checkpoint.object["head"].storage is checkpoint.object["inner"].storage


def viewing(offset, numel):
    """A legacy file whose two tensors are the elements of a storage of four, and a part of it."""
    view = pickles.tuple_(pickles.text("part"), pickles.integer(offset), pickles.integer(numel))
    part = pickles.storage("0", 4, "FloatStorage", "cpu", view)
    return streams.legacy(
        pickles.state(
            w=pickles.tensor(streams.PLACE),
            part=pickles.tensor(part, 0, (numel - 1,)),
            again=pickles.tensor(part, 1, (1,)),
        )
    )


def test_views_of_a_storage_share_it():
    """In the oldest files a storage can be part of another one; its tensors become leaves of that one."""
    raw = viewing(1, 3)
    state = opened(raw).object
    assert {leaf.storage.key for leaf in state.values()} == {state["w"].storage.key}
    assert [leaf.spec.offset for leaf in state.values()] == [0, 1, 2]
    expected = torch.load(io.BytesIO(raw), weights_only=False)
    assert [read_array(leaf).tolist() for leaf in state.values()] == [tensor.tolist() for tensor in expected.values()]
    with pytest.raises(FormatError, match="a view of storage '0' exceeds the storage"):
        opened(viewing(2, 3))


@pytest.mark.parametrize("mapped", [False, True])
def test_from_a_file(tmp_path, mapped):
    """A legacy file's tensors are read, or mapped where they are aligned."""
    path = tmp_path / "old.pt"
    path.write_bytes(saved(state()))
    expected = torch.load(path, weights_only=False)
    with formats.open(path) as checkpoint:
        arrays = materialize(list(checkpoint.object.values()), library("torch"), mapped=mapped)
        assert all(found.equal(tensor) for found, tensor in zip(arrays, expected.values()))


def test_long_pickles_are_read_on(monkeypatch):
    """A pickle longer than the first block is read to its end, with the same result."""
    monkeypatch.setattr(_stacked, "FIRST", 16)
    raw = saved({f"t{n}": torch.full((2,), n) for n in range(200)})
    found = loaded(opened(raw).object)
    assert [tensor.tolist() for tensor in found.values()] == [[n, n] for n in range(200)]


def test_a_cut_file_says_how_much_is_missing():
    """The error for a truncated file says how many bytes it has, and how many it should have."""
    raw = saved({"a": torch.randn(1000)})
    with pytest.raises(
        TruncatedError, match=rf"the file is truncated: it has {len(raw) - 100:,} of {len(raw):,} bytes"
    ):
        opened(raw[:-100])


def test_bytes_after_the_last_storage_are_noted():
    """Bytes after the last storage (often another save) are left alone, as in torch.load, and noted."""
    checkpoint = opened(saved({"a": torch.ones(2)}) + b"more")
    assert checkpoint.notes == [UNCHECKED, "4 bytes follow the last storage"]


def test_saves_that_follow_each_other_are_read_in_turn():
    """Closing leaves a file object behind what was read, as torch.load does: the next save can be opened from there."""
    stream = io.BytesIO(saved({"a": torch.ones(2)}) + saved({"b": torch.zeros(3)}))
    with formats.open(stream) as first:
        assert list(first.object) == ["a"]
    with formats.open(stream) as second:
        assert read_array(second.object["b"]).tolist() == [0, 0, 0]


def test_plain_pickles_are_read():
    """A state that was pickled without torch.save opens, its tensors and arrays included."""
    tree = {"w": torch.arange(3.0), "n": np.ones(2), "step": 3}
    checkpoint = opened(pickle.dumps(tree))
    assert (checkpoint.format, checkpoint.producer) == ("pickle", "Python's pickle")
    assert isinstance(checkpoint.object["w"], Leaf)
    assert read_array(checkpoint.object["w"]).tolist() == [0, 1, 2]
    assert checkpoint.object["n"].tolist() == [1, 1]
    assert checkpoint.object["step"] == 3
    with pytest.raises(FormatError, match="2 bytes follow the first pickle, which is not the magic number of torch"):
        opened(pickle.dumps(tree) + b"xx")


def test_pickles_in_pickles_have_a_limit():
    """A pickled tensor contains a file; a further file inside that one is read only if the limit allows it."""
    inner = torch.arange(3.0)
    raw = saved({"outer": [pickle.loads(pickle.dumps(inner))]})
    assert read_array(opened(raw, limits=Limits(nested=0)).object["outer"][0]).tolist() == [0, 1, 2]
    plain = opened(pickle.dumps(inner), limits=Limits(nested=0))
    assert not isinstance(plain.object, Leaf)


# tar


def test_a_tar_is_read():
    """The oldest files: a tar of storages, tensors and the object."""
    checkpoint = opened(streams.tar())
    assert (checkpoint.format, checkpoint.notes) == ("torch-tar", [UNCHECKED])
    assert read_array(checkpoint.object["w"]).shape == (4,)


def test_another_tar_is_not_a_checkpoint(tmp_path):
    """Another tar archive is recognised as one, and a member that is a link is refused."""
    path = tmp_path / "other.tar"
    (tmp_path / "x").write_bytes(b"x")
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "x", "x")
    with pytest.raises(
        FormatError,
        match=r"this is a tar archive, but not a checkpoint; its members: .*unpack the archive and open that file",
    ):
        formats.open(path)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, "x"
        archive.addfile(link)
    with pytest.raises(FormatError, match="storages: it is not a regular file"):
        formats.open(path)


def test_facts_that_make_another_archive_are_refused(tmp_path):
    """A member whose name is not in its own header is refused, because readers disagree on it."""
    path = tmp_path / "other.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("größe"))
    with pytest.raises(FormatError, match="it redefines another member"):
        formats.open(path)


def test_what_follows_the_end_of_a_tar_is_refused():
    """Zeros may follow the end of a tar, but nothing else: a second archive would be ignored."""
    raw = streams.tar()
    assert opened(raw + bytes(10240)).format == "torch-tar"
    with pytest.raises(FormatError, match="bytes follow the end of the tar archive"):
        opened(raw + raw)


def test_a_damaged_header_of_a_tar_is_noticed():
    """A damaged tar header is noticed by its checksum."""
    raw = bytearray(streams.tar())
    raw[3] ^= 1
    with pytest.raises(FormatError, match="a header of the tar archive is invalid"):
        opened(bytes(raw))


# files that are not checkpoints


MISTAKEN = {
    "empty": (b"", TruncatedError, r"the file is empty \(0 bytes\)"),
    "html": (b"\n<!DOCTYPE html><html>", FormatError, "this is an HTML page, not a checkpoint .*error page"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        FormatError,
        r"a Git LFS pointer.*git lfs pull",
    ),
    "xml": (b'<?xml version="1.0"?><Error/>', FormatError, "an XML document"),
    "json": (b'{"error": "not found"}', FormatError, "an error message in JSON"),
    "gzip": (b"\x1f\x8b\x08rest", FormatError, r"a gzip-compressed file.*decompress it first with gunzip"),
    "zstd": (b"\x28\xb5\x2f\xfdrest", FormatError, "a zstd-compressed file"),
    "hdf5": (b"\x89HDF\r\n\x1a\nrest", FormatError, "an HDF5 file .*h5py, or install or write a plugin for it"),
    "onnx": (b"\x08\x08\x12\x07pytorch", FormatError, "an ONNX model, not a checkpoint .read it with onnx.load"),
    "onnx without a producer": (b"\x08\x04B\x02\x10\x0d", FormatError, "an ONNX model"),
    "msgpack": (
        b"\x82\xa6params\x81\xa1w\xc0",
        FormatError,
        "a msgpack file .Flax., not a checkpoint .install the plugin statedict-flax",
    ),
    "large msgpack": (b"\xde\0\x20\xa1w\xc0", FormatError, "a msgpack file"),
    "zeros": (bytes(4096), FormatError, "its first 512 bytes are all zero .*never written"),
    "noise": (b"\xf1\xf2\xf3\xf4", FormatError, r"unrecognised file format \(starts with f1 f2 f3 f4; 4 bytes\)"),
    "text": (b"Internal Server Error", FormatError, "unrecognised file format"),
    "half a zip": (
        b"PK\3\4" + bytes(60),
        TruncatedError,
        "the end record of the archive is missing: the file is truncated after 64 bytes",
    ),
}


@pytest.mark.parametrize("name", MISTAKEN)
def test_a_file_that_is_not_a_checkpoint_is_recognised(name):
    """The error names the kind of file, and says what to do."""
    raw, error, text = MISTAKEN[name]
    with pytest.raises(error, match=text):
        opened(raw)


def test_a_storage_that_is_listed_twice_is_refused():
    """The list of storages names each one once: a second entry would shift all that follow."""
    raw = streams.legacy(keys=pickle.dumps(["0", "0"], 2), blobs=2 * ((4).to_bytes(8, "little") + streams.FOUR))
    with pytest.raises(FormatError, match="a key is listed twice"):
        opened(raw)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 2)])
@pytest.mark.parametrize("dtype", ["f4", "U1", "f4,f4", "M8[s]"])
def test_a_plain_pickle_may_be_one_array(dtype, shape, protocol):
    """An array of any shape and dtype that pickle.dump wrote is read as that array."""
    array = np.zeros(shape, dtype)
    found = opened(pickle.dumps(array, protocol)).object
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize("count", [-4, 0, 3, 5])
def test_the_number_before_a_storage_must_be_its_number_of_elements(count):
    """The number of elements before a storage's bytes must equal the one in the pickle: neither less nor more."""
    with pytest.raises(FormatError, match=f"storage 0.* it should have 4 elements, but its header says {count}"):
        opened(streams.legacy(blobs=struct.pack("<q", count) + streams.FOUR))


def test_a_key_that_is_an_address_has_at_most_128_bits():
    """The oldest files use addresses as the keys of storages; a larger integer is refused."""
    key = (1 << 128) - 1
    place = pickles.storage(pickles.integer(key), 4, "FloatStorage", "cpu", pickles.NONE)
    found = opened(streams.legacy(pickles.state(w=pickles.tensor(place)), keys=pickle.dumps([key], 2))).object
    assert read_array(found["w"]).tolist() == np.frombuffer(streams.FOUR, "f4").tolist()
    with pytest.raises(FormatError, match="the key of a storage is larger than any address"):
        opened(streams.legacy(keys=pickle.dumps([key + 1], 2)))


def test_a_tensor_that_a_tar_lacks_is_named():
    """The object of a tar can refer only to tensors that the archive contains."""
    with pytest.raises(FormatError, match="the object refers to the tensor '8', which is missing"):
        opened(streams.tar(pickle=pickles.state(w=pickles.integer(8) + b"Q")))
