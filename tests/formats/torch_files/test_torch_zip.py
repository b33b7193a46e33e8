"""torch.save's zip files: we read torch's, torch reads ours, and the bytes are equal where they can be."""

import io
import os
import re
import signal
import struct
import threading
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from tests.archives import packed, unpacked

from statedict import formats
from statedict.errors import ChecksumError, FormatError, SaveError, TruncatedError
from statedict.state import DTYPES, library, materialize, read_array

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]
PLAIN = [name for name in DTYPES if isinstance(getattr(torch, name, None), torch.dtype)]
PLAIN = [name for name in PLAIN if DTYPES[name].kind not in ("quantized",) and not re.match(r"u?int[1-7]$|bits", name)]


def saved(obj, **options):
    out = io.BytesIO()
    torch.save(obj, out, **options)
    return out.getvalue()


def written(obj, **options):
    out = io.BytesIO()
    formats.write(obj, out, **options)
    return out.getvalue()


def opened(raw):
    return formats.open(io.BytesIO(raw))


def load(raw, **options):
    return torch.load(io.BytesIO(raw), **{"weights_only": True, **options})


def our_load(raw):
    """The flat state in the file as torch tensors, read by us."""
    state = opened(raw).object
    return dict(zip(state, materialize(list(state.values()), library("torch"))))


def raw_bytes(tensor):
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().flatten()
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert raw_bytes(found[name]) == raw_bytes(tensor), name


def tensor_of(name, count=6):
    if name == "bool":
        return torch.arange(count) % 2 == 0
    raw = torch.arange(count * DTYPES[name].itemsize, dtype=torch.int64).to(torch.uint8)
    return raw.view(getattr(torch, name))


def every_type():
    return OrderedDict((name, tensor_of(name)) for name in PLAIN)


def awkward():
    base = torch.randn(10, 12)
    state = OrderedDict(
        transposed=base.t(),
        column=torch.randn(8, 9)[:, 3],
        sliced=torch.randn(1000)[10:20],
        expanded=torch.randn(1).expand(5),
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(3.5),
        conjugate=torch.randn(3, dtype=torch.complex64).conj(),
        parameter=torch.nn.Parameter(torch.ones(2)),
        channels=torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        large=torch.randn(300, 1000),
    )
    state["tied"] = state["large"]
    state["base"] = base
    return state


# reading what torch writes


@pytest.mark.parametrize("state", [every_type(), awkward()], ids=["types", "views"])
def test_what_torch_writes_is_read(state):
    """Every element type and layout comes out as torch.load gives it, strides and storage sharing included."""
    raw = saved(state)
    found, expected = our_load(raw), load(raw, weights_only=False)
    assert_same(found, expected)
    for name in expected:
        assert found[name].stride() == expected[name].stride()
    if "tied" in state:
        assert found["tied"].data_ptr() == found["large"].data_ptr()
        assert found["base"].untyped_storage().data_ptr() == found["transposed"].untyped_storage().data_ptr()


def test_what_is_known_without_reading():
    """A Checkpoint states format, size, versions, imports and roots without reading tensors, and its repr is
    one line."""
    raw = saved({"model": torch.nn.Linear(2, 3).state_dict()})
    with opened(raw) as checkpoint:
        assert (checkpoint.format, checkpoint.size, checkpoint.producer) == ("torch", len(raw), "PyTorch")
        assert checkpoint.metadata == {
            "version": "3",
            "byteorder": "little",
            ".format_version": "1",
            ".storage_alignment": "64",
        }
        assert [named.path for named in checkpoint.globals] == [
            "collections.OrderedDict",
            "torch._utils._rebuild_tensor_v2",
            "torch.FloatStorage",
        ]
        assert list(checkpoint.roots) == ["model"]
        assert list(checkpoint.state_dict()) == ["weight", "bias"]
        assert repr(checkpoint) == f"<Checkpoint '<BytesIO>': torch, {len(raw):,} bytes>"
        assert checkpoint.verify(values=True) == []


def rezipped(raw, method=zipfile.ZIP_STORED, drop=(), replace=None, folder=True):
    """The archive as another tool would write it, some members left out or replaced."""
    members = {"archive/": b""} if folder else {}
    for name, content in unpacked(raw).items():
        inside = name.partition("/")[2]
        if inside and inside not in drop:
            members[name] = (replace or {}).get(inside, content)
    return packed(members, method)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_that_other_tools_zipped(tmp_path, method):
    """An archive packed again, deflated too, gives the same tensors, mapped or not: never compressed bytes as weights."""
    state = {"a": torch.randn(50, 20), "b": torch.arange(7)}
    path = tmp_path / "again.pt"
    path.write_bytes(rezipped(saved(state), method))
    with formats.open(path) as checkpoint:
        for mapped in (False, True):
            found = materialize(list(checkpoint.object.values()), library("torch"), mapped=mapped)
            assert [tensor.tolist() for tensor in found] == [tensor.tolist() for tensor in state.values()]
        assert checkpoint.verify() == []
        leaf = checkpoint.object["a"]
        part = memoryview(bytearray(8))
        leaf.storage.source.read_into([(leaf.storage, 80, part)])
        assert part == raw_bytes(state["a"])[80:88]


@pytest.mark.parametrize("drop", [("byteorder",), (".format_version", ".storage_alignment"), ("version",)])
def test_files_of_other_versions(drop):
    """Files without the facts that later versions added, or without a version, are read."""
    state = {"a": torch.randn(3)}
    assert_same(our_load(rezipped(saved(state), drop=drop)), state)


def test_checksums_that_were_not_computed():
    """torch can omit checksums: such a file is read, with a note."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        raw = saved({"a": torch.randn(3)})
    finally:
        torch.serialization.set_crc32_options(before)
    assert opened(raw).notes == ["the file was saved without checksums: damage to its content cannot be detected"]
    assert our_load(raw)["a"].shape == (3,)


def test_big_endian_files():
    """The bytes of each element are reversed: in a complex one those of each half, in a byte nothing."""
    state = OrderedDict(
        (name, tensor_of(name)) for name in ("float32", "int16", "complex64", "uint8", "uint16", "bfloat16")
    )
    raw = saved(state)
    replace = {"byteorder": b"big"}
    for number, (name, tensor) in enumerate(state.items()):
        unit = DTYPES[name].itemsize // (2 if "complex" in name else 1)
        array = np.frombuffer(raw_bytes(tensor), np.uint8).reshape(-1, unit)[:, ::-1]
        replace[f"data/{number}"] = array.tobytes()
    found = opened(rezipped(raw, replace=replace))
    assert_same(our_load(rezipped(raw, replace=replace)), state)
    leaf = found.object["float32"]
    odd = memoryview(bytearray(5))
    leaf.storage.source.read_into([(leaf.storage, 3, odd)])
    assert odd == raw_bytes(state["float32"])[3:8]


def test_location_tags_are_kept():
    """The device that a storage was saved from is kept as a tag and not used."""
    raw = rezipped(saved({"a": torch.ones(2)}))
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        pickled = archive.read("archive/data.pkl").replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:1")
    leaf = opened(rezipped(raw, replace={"data.pkl": pickled})).object["a"]
    assert leaf.storage.location == "cuda:1"
    assert read_array(leaf).tolist() == [1, 1]


FACTS = {
    "a newer version": ({"version": b"11\n"}, "unsupported version '11'; versions up to 10 are supported"),
    "no version": ({"version": b"three"}, "unsupported version 'three'"),
    "a huge version": ({"version": b"9" * 21}, "unsupported version '9{21}'"),
    "byte order": ({"byteorder": b"middle"}, "the byte order must be 'little' or 'big', not 'middle'"),
    "a short storage": (
        {"data/0": bytes(8)},
        "a storage of 3 elements of 4 bytes is named here, but archive/data/0 has 8 bytes",
    ),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_that_do_not_fit_are_named(name):
    """An invalid version, byte order or storage is an error that names it."""
    replace, text = FACTS[name]
    with pytest.raises(FormatError, match=text):
        opened(rezipped(saved({"a": torch.ones(3)}), replace=replace))


def test_structure_that_does_not_fit_is_named():
    """A missing storage, members of two folders, and names that differ in case only are errors."""
    raw = saved({"a": torch.ones(3)})
    with pytest.raises(
        FormatError, match=r"data\.pkl at byte \d+: a storage '0' is named here, but the archive has no archive/data/0"
    ):
        opened(rezipped(raw, drop=("data/0",)))
    for name, text in {
        "other/data.pkl": "are not all in one folder",
        "archive/DATA.PKL": "names that differ only in case",
    }.items():
        out = io.BytesIO(rezipped(raw))
        with zipfile.ZipFile(out, "a") as archive:
            archive.writestr(name, b"N.")
        with pytest.raises(FormatError, match=text):
            opened(out.getvalue())


def test_another_zip_is_not_a_checkpoint():
    """Another zip archive is recognised as one, with its members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", b"<x/>")
    with pytest.raises(
        FormatError, match=r"this is a zip archive, but not a checkpoint; its members: word/document\.xml"
    ):
        opened(out.getvalue())


def test_storages_that_nothing_shows_are_found():
    """A storage that no tensor uses is harmless, and noted."""
    out = io.BytesIO(rezipped(saved({"a": torch.ones(3)})))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("archive/data/7", b"lost")
    findings = opened(out.getvalue()).verify()
    assert [str(finding) for finding in findings] == ["note: storages that no tensor uses: archive/data/7"]


# writing


@pytest.mark.parametrize("options", [{}, {"weights_only": False}], ids=["weights only", "unrestricted"])
@pytest.mark.parametrize("state", [every_type(), awkward()], ids=["types", "views"])
def test_torch_reads_what_we_write(state, options):
    """torch.load gives the same tensors; shared storages are shared, and strides without gaps are kept."""
    found = load(written(state), **options)
    assert_same(found, state)
    if "tied" in state:
        assert found["tied"].data_ptr() == found["large"].data_ptr()
        assert found["base"].untyped_storage().data_ptr() == found["transposed"].untyped_storage().data_ptr()
        assert found["transposed"].stride() == state["transposed"].stride()
        assert found["channels"].stride() == state["channels"].stride()
        assert found["expanded"].stride() == (0,)
        assert found["conjugate"].is_conj()
        assert isinstance(found["parameter"], torch.nn.Parameter)


@pytest.mark.parametrize(
    "obj",
    [
        {"w": torch.randn(3, 4), "b": torch.ones(2)},
        torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict(),
        {"tied": [torch.ones(1)] * 2, "empty": torch.zeros(0), "n": 3},
        every_type(),
        {f"t{n}": torch.full((4,), n) for n in range(300)},
        {"large": torch.randn(200_000), "after": torch.ones(3), "huge": torch.zeros(600_000)},
    ],
    ids=["dict", "model", "ties", "types", "many", "large"],
)
def test_the_bytes_are_torchs(obj):
    """If nothing is cut down, the file equals torch.save's, except for the serialization id at its end."""
    ours, theirs = written(obj), saved(obj)
    assert len(ours) == len(theirs)
    start = theirs.rindex(b".data/serialization_id", 0, theirs.index(b"PK\1\2"))
    payload = -(-(start + len(".data/serialization_id") + 4) // 64) * 64
    assert ours[:payload] == theirs[:payload]
    assert ours[payload : payload + 40].isdigit()
    central = theirs.index(b"PK\1\2", payload)
    place = theirs.rindex(b"PK\1\2")
    assert ours[central : place + 16] == theirs[central : place + 16]
    assert ours[place + 20 :] == theirs[place + 20 :]


def test_metadata_is_kept_where_torch_does_not_look():
    """Metadata is given back by us, and does not disturb torch."""
    raw = written({"a": torch.ones(1)}, metadata={"epoch": "3", "run/name": "größe"})
    assert {key: text for key, text in opened(raw).metadata.items() if "." not in key} == {
        "version": "3",
        "byteorder": "little",
        "epoch": "3",
        "run/name": "größe",
    }
    assert load(raw)["a"].tolist() == [1]


@pytest.mark.parametrize("metadata", [{"../x": "1"}, {"": "1"}, {"a": 1}, {"/a": "x"}])
def test_metadata_that_does_not_fit_is_refused(metadata):
    """Metadata that the format cannot store, or that uses a reserved key, is refused."""
    with pytest.raises(SaveError, match="metadata"):
        written({}, metadata=metadata)


def test_an_unpicklable_value_touches_no_file(tmp_path):
    """A value that cannot be written is refused before the file is opened."""
    path = tmp_path / "x.pt"
    path.write_bytes(b"old")
    with pytest.raises(SaveError):
        formats.write({"f": lambda: 1}, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


def test_an_unknown_format_is_refused():
    """The error for an unknown format lists those that exist."""
    with pytest.raises(SaveError, match=r"format must be one of 'torch', 'safetensors', .*, not 'onnx'"):
        written({}, format="onnx")


# damage


def test_a_cut_file_says_how_much_is_missing():
    """The error for a truncated file says how many bytes it has, and how many it should have."""
    raw = saved({"a": torch.randn(1000), "b": torch.randn(500)})
    with pytest.raises(TruncatedError, match=r"the file is truncated: it has 3,000 of at least 6,\d\d\d bytes"):
        opened(raw[:3000])
    for length in (0, 100, len(raw) - 10):
        with pytest.raises(TruncatedError, match=r"the file is empty|the end record of the archive is missing"):
            opened(raw[:length])


def test_damage_names_the_tensor():
    """A changed tensor is named by its path in the file, by reading and by verifying."""
    raw = bytearray(saved({"model": {"w": torch.full((5,), 1.25), "b": torch.zeros(2)}}))
    at = raw.index(struct.pack("<f", 1.25) * 5)
    raw[at] ^= 1
    checkpoint = opened(bytes(raw))
    with pytest.raises(
        ChecksumError, match=r"archive/data/0: the bytes of 'model/w' have changed since they were written"
    ):
        materialize([checkpoint.object["model"]["w"]], library("numpy"))
    assert read_array(checkpoint.object["model"]["b"]).tolist() == [0, 0]
    assert [(finding.level, finding.where) for finding in checkpoint.verify()] == [("error", "model/w")]


def test_values_that_numpy_warns_of_are_counted_without_a_warning():
    """A signalling NaN of bfloat16 counts as not finite; NumPy's warning of it does not reach the caller."""
    state = {"w": torch.tensor([0x7F81, 0x3F80], dtype=torch.uint16).view(torch.bfloat16)}
    [finding] = opened(saved(state)).verify(values=True)
    assert (finding.level, finding.where) == ("warning", "w")


def test_closed_means_closed(tmp_path):
    """After `close` tensors cannot be read, and the error says what to do; arrays that were read stay valid."""
    path = tmp_path / "x.pt"
    formats.write({"a": torch.ones(2), "b": torch.zeros(2)}, path)
    with formats.open(path) as checkpoint:
        (kept,) = materialize([checkpoint.object["a"]], library("numpy"), mapped=True)
        checkpoint.close()
    with pytest.raises(ValueError, match=r"x\.pt has been closed; open it again"):
        read_array(checkpoint.object["b"])
    assert kept.tolist() == [1, 1]


def test_who_wrote_a_file(tmp_path):
    """Our files are recognised by their serialization id, with or without metadata; repacked ones count as
    PyTorch's."""
    torch.save({"w": torch.ones(3)}, tmp_path / "theirs.pt")
    formats.write({"w": torch.ones(3)}, tmp_path / "ours.pt")
    formats.write({"w": torch.ones(3)}, tmp_path / "noted.pt", metadata={"a": "b"})
    members = unpacked(tmp_path / "ours.pt")
    (tmp_path / "remade.pt").write_bytes(packed({**members, "archive/data/0": bytes(len(members["archive/data/0"]))}))
    producers = {}
    for path in tmp_path.iterdir():
        with formats.open(path) as checkpoint:
            producers[path.name] = checkpoint.producer
    ours = {"ours.pt": "statedict", "noted.pt": "statedict"}
    assert producers == {"theirs.pt": "PyTorch", "remade.pt": "PyTorch", **ours}


def test_files_of_one_layout_share_nothing(tmp_path):
    """Two files that differ only in their elements each give their own, also in the attributes of tensors."""
    import torch

    for name, value in (("one", 1.0), ("two", 2.0)):
        state = {f"layer.{n}.weight": torch.full((4,), value) for n in range(400)}
        special = torch.nn.Parameter(torch.zeros(4))
        special.aux, special.tags = torch.full((3,), value), ["a"]
        state["special"] = special
        (tmp_path / name).mkdir()
        torch.save(state, tmp_path / name / "m.pt")
    with formats.open(tmp_path / "one" / "m.pt") as one, formats.open(tmp_path / "two" / "m.pt") as two:
        first, second = (checkpoint.object["special"].traits.attributes for checkpoint in (one, two))
        assert first["tags"] is not second["tags"]
        assert read_array(first["aux"]).tolist() == [1.0] * 3
        assert read_array(second["aux"]).tolist() == [2.0] * 3
        assert read_array(two.object["layer.7.weight"]).tolist() == [2.0] * 4


@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_a_thread_opens_files(tmp_path):
    """A child that is forked while another thread opens files can open files too: no lock stays held."""
    path = tmp_path / "m.pt"
    path.write_bytes(written({f"layer.{n}.weight": np.full(4, n, "f4") for n in range(2000)}))
    done = threading.Event()

    def work():
        while not done.is_set():
            formats.open(path).close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(4):
            child = os.fork()
            if not child:
                signal.alarm(60)  # ends a child that hangs
                os._exit(0 if len(formats.open(path).object) == 2000 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        thread.join()
