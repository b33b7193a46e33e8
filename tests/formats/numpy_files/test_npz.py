"""npz and npy: we read NumPy's files, NumPy reads ours, and objects are never unpickled."""

import io
import zipfile

import ml_dtypes
import numpy as np
import pytest
from tests.archives import packed

import statedict
from statedict import formats
from statedict.errors import ChecksumError, FormatError, LimitError, SaveError, TruncatedError, UnsafeFileError
from statedict.formats import Limits
from statedict.formats.numpy_files._npy_header import npy_header
from statedict.formats.zip import _archive as _zip
from statedict.state import DTYPES, Leaf, Opaque, StateDict, leaf_of, library, materialize, read_array

OURS = {name: dtype for name, dtype in DTYPES.items() if dtype.kind in ("float", "complex", "int", "uint", "bool")}


def saved(*, save=np.savez, **arrays):
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


def written(state, format="npz", **options):
    out = io.BytesIO()
    formats.write(state, out, format=format, **options)
    return out.getvalue()


def opened(raw, **options):
    return formats.open(io.BytesIO(raw), **options)


def arrays_of(raw):
    state = opened(raw).object
    return dict(zip(state, materialize(list(state.values()), library("numpy"))))


def array_of(name):
    dtype = OURS[name].numpy
    return (np.arange(6 * dtype.itemsize, dtype=np.uint8) % 2).view(dtype).reshape(2, 3)


ODD = {
    "row": np.arange(6.0).reshape(2, 3),
    "column": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided": np.arange(12.0)[::3],
    "scalar": np.array(7, np.uint16),
    "empty": np.zeros((0, 3)),
    "W": np.ones(1, np.int8),
    "w": np.zeros(1, np.int8),
    "a/b:0": np.ones(2, np.complex64),
    "größe": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(save):
    """Arrays stored or deflated, of any layout and either byte order, come out equal."""
    state = ODD | {"big": np.arange(5, dtype=">i4"), "big complex": np.full(2, 1 + 2j, ">c8")}
    found = arrays_of(saved(save=save, **state))
    assert list(found) == list(state)
    for name, array in state.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype.newbyteorder("="))
        assert (found[name] == array).all()


def test_numpy_reads_what_we_write():
    """np.load finds every name, with the same elements, without pickles."""
    found = np.load(io.BytesIO(written(ODD)), allow_pickle=False)
    assert found.files == list(ODD)
    for name, array in ODD.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert (found[name] == array).all()


@pytest.mark.parametrize("name", OURS)
def test_every_element_type_goes_both_ways(name):
    """Types that NumPy does not have are bytes for NumPy, as it writes them itself, and are restored by our reader."""
    array = array_of(name)
    raw = written({"x": array})
    assert np.load(io.BytesIO(raw))["x"].tobytes() == array.tobytes()
    leaf = opened(raw).object["x"]
    assert (leaf.spec.dtype.name, read_array(leaf).tobytes()) == (name, array.tobytes())


def test_types_without_arithmetic_keep_their_names():
    """Quantised and sub-byte types are integers for NumPy, and are restored by our reader."""
    raw = leaf_of(np.arange(4, dtype=np.uint8))
    for name in ("quint8", "uint4", "bits8"):
        leaf = Leaf(raw.spec._replace(dtype=DTYPES[name]), raw.storage)
        archive = written({"x": leaf})
        assert np.load(io.BytesIO(archive))["x"].view(np.uint8).tolist() == [0, 1, 2, 3]
        assert opened(archive).object["x"].spec.dtype.name == name


def test_ties_and_metadata_are_kept():
    """Names that are tied are tied again; metadata and `_metadata` are given back; NumPy sees arrays only."""
    shared = np.ones((2, 3))
    state = StateDict({"a": shared, "b": shared, "c": np.zeros(2)}, {"": {"version": 2}})
    raw = written(state, metadata={"epoch": "3"})
    checkpoint = opened(raw)
    assert checkpoint.object["a"].storage is checkpoint.object["b"].storage
    assert checkpoint.object._metadata == {"": {"version": 2}}
    assert (checkpoint.metadata, checkpoint.format) == ({"epoch": "3"}, "npz")
    assert np.load(io.BytesIO(raw)).files == ["a", "b", "c"]
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None


def test_objects_are_never_unpickled():
    """Arrays of Python objects are Opaque, text is a list, and the rest loads."""
    raw = saved(
        w=np.ones(2),
        objects=np.array([{}], dtype=object),
        text="hello",
        names=np.array([["a", "bc"]]),
        long=np.ones(2, np.longdouble),
        bfloat=np.ones(2, ml_dtypes.bfloat16),
        fields=np.zeros(2, [("x", "<f4")]),
    )
    state = opened(raw).object
    assert (state["text"], state["names"]) == ("hello", [["a", "bc"]])
    assert {name for name, value in state.items() if isinstance(value, Opaque)} == {
        "objects",
        "long",
        "bfloat",
        "fields",
    }
    assert read_array(state["w"]).tolist() == [1, 1]


def test_a_single_array():
    """An .npy file is one leaf, read or written."""
    out = io.BytesIO()
    np.save(out, np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    checkpoint = opened(out.getvalue())
    assert checkpoint.format == "npy"
    assert checkpoint.notes == ["the file has no checksum: damage cannot be detected"]
    assert read_array(checkpoint.object).tolist() == [[0, 1, 2], [3, 4, 5]]
    array = np.arange(6, dtype=np.int16).reshape(3, 2)
    assert (np.load(io.BytesIO(written(array.T, format="npy"))) == array.T).all()


def test_arrays_are_aligned_and_can_be_mapped(tmp_path):
    """Elements begin at a multiple of 64 bytes in the file, so that they can be mapped."""
    path = tmp_path / "m.npz"
    formats.write({"a": np.ones(5), "b": np.arange(3)}, path)
    with formats.open(path) as checkpoint:
        for leaf in checkpoint.object.values():
            assert (leaf.storage.where.offset + leaf.storage.where.skip) % 64 == 0
            assert leaf.storage.source.view(leaf.storage, writable=True) is not None


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "an npz file needs at least one tensor"),
        ([np.ones(1)], "npz stores a mapping of names to tensors, not a list"),
        ({"n": 3}, "'n' is an int"),
        ({"../x": np.ones(1)}, r"'\.\./x' is not a valid name for a member of an archive"),
        ({"a\\b": np.ones(1)}, "is not a valid name for a member of an archive"),
    ],
)
def test_what_it_cannot_hold_is_refused(state, text):
    """A value or name that the format cannot store is refused, and named."""
    with pytest.raises(SaveError, match=text):
        written(state)


def test_what_npy_cannot_hold_is_refused():
    """An .npy file holds one array of NumPy's types, and no metadata; a comment has a length."""
    for obj in ({"a": np.ones(1)}, np.ones(1, ml_dtypes.bfloat16)):
        with pytest.raises(SaveError, match="an npy file stores one array of a NumPy dtype"):
            written(obj, format="npy")
    with pytest.raises(SaveError, match="an npy file cannot store metadata"):
        written(np.ones(1), format="npy", metadata={"a": "b"})
    with pytest.raises(SaveError, match="the metadata exceeds the 65,535 bytes"):
        written({"a": np.ones(1)}, metadata={"a": "x" * 70_000})


# damage


def archive(**members):
    return packed({f"{name}.npy": raw for name, raw in members.items()})


def header(text, version=b"\1\0"):
    raw = text.encode("latin-1")
    return b"\x93NUMPY" + version + len(raw).to_bytes(2 if version[0] == 1 else 4, "little") + raw


GOOD = npy_header(DTYPES["float32"], (3,)) + bytes(12)
BAD = {
    "magic": (b"NUMPY" + GOOD, FormatError, "the file does not start with the .npy signature"),
    "version": (GOOD[:6] + b"\4\0" + GOOD[8:], FormatError, "unsupported .npy version 4.0"),
    "long": (GOOD[:8] + b"\xff\xff" + GOOD[10:], FormatError, "the header has 65,535 bytes"),
    "cut": (GOOD[:50], TruncatedError, "truncated within the header"),
    "no literal": (header("{'descr': exit()}"), FormatError, "the header is not a valid Python literal"),
    "nested": (header("(" * 5000), FormatError, "the header is not a valid Python literal"),
    "fields": (header("{'descr': '<f4', 'shape': ()}"), FormatError, "exactly the keys descr, fortran_order and shape"),
    "shape": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}"),
        FormatError,
        "the shape or fortran_order in the header",
    ),
    "short": (GOOD[:-1], FormatError, r"shape \(3,\) has 12 bytes, but there are 11"),
    "text": (
        header("{'descr': '<U4', 'fortran_order': False, 'shape': (9,)}"),
        FormatError,
        "its 0 bytes do not match",
    ),
    "dimensions": (npy_header(DTYPES["float32"], (1,) * 65) + bytes(4), LimitError, "65 dimensions"),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_wrong_say_how(name):
    """Each way in which an array can be wrong is an error that says which, and names it."""
    raw, error, text = BAD[name]
    with pytest.raises(error, match=text) as caught:
        opened(archive(good=GOOD, bad=raw))
    assert caught.value.member == "bad.npy"


def test_versions_of_the_header():
    """Longer headers, and names in other alphabets, have versions of their own."""
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
    for version in (b"\2\0", b"\3\0"):
        assert read_array(opened(archive(x=header(text, version) + bytes(4))).object["x"]).tolist() == [0]


def test_a_member_that_is_not_an_array_is_refused():
    """An archive with other members is not a valid .npz file."""
    out = io.BytesIO(archive(x=GOOD))
    with zipfile.ZipFile(out, "a") as new:
        new.writestr("readme.txt", b"hello")
    with pytest.raises(FormatError, match="this is a zip archive, but not a checkpoint"):
        opened(out.getvalue())


def test_damage_names_the_array():
    """A changed array is named, by reading and by verifying, its header included."""
    raw = written({"first": np.ones(3), "second": np.full(3, 2.0)})
    at = raw.index(np.full(3, 2.0).tobytes())
    damaged = raw[:at] + b"\1" + raw[at + 1 :]
    with pytest.raises(ChecksumError, match=r"second\.npy: its 152 bytes have changed since they were written"):
        materialize([opened(damaged).object["second"]], library("numpy"))
    assert [(finding.level, finding.where) for finding in opened(damaged).verify()] == [("error", "second")]


def test_ties_that_cannot_be_are_refused():
    """Ties between tensors that cannot be tied are refused."""
    shared = np.ones(3)
    raw = written({"a": shared, "b": shared, "c": np.ones(2)})
    with pytest.raises(FormatError, match="it is recorded as tied to 'c', which is a different array"):
        opened(raw.replace(b'{"tied": "a"}', b'{"tied": "c"}'))
    with pytest.raises(FormatError, match="its extra field in the archive's directory is malformed"):
        opened(raw.replace(b'{"tied": "a"}', b'{"tied":  1 }'))


class Runs:
    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize("form", ["npz", "npz, deflated", "npy"])
def test_the_pickles_of_objects_are_looked_into(form, capsys):
    """An array of objects is a pickle for NumPy: its imports are listed, and `load` refuses dangerous ones."""
    array = np.array([Runs()], dtype=object)
    out = io.BytesIO()
    {"npz": np.savez, "npz, deflated": np.savez_compressed}.get(form, np.save)(out, array)
    found = opened(out.getvalue())
    assert [path.partition(".")[2] for path in found.dangerous] == ["print"]
    assert "would run code" in str(found.verify()[0])
    with pytest.raises(UnsafeFileError, match="print"):
        statedict.load(io.BytesIO(out.getvalue()), backend="numpy")
    assert capsys.readouterr().out == ""


def test_objects_that_run_nothing_are_safe():
    """An array of plain objects is not dangerous."""
    found = opened(saved(o=np.array([{"a": 1}, None], dtype=object)))
    assert (found.dangerous, type(found.object["o"])) == ([], Opaque)


def test_objects_that_cannot_be_read_count_as_dangerous():
    """A damaged or unsupported pickle counts as dangerous, and the finding says that it was not read."""
    field = np.array([(1, Runs())], dtype=[("a", "i4"), ("b", object)])
    out = io.BytesIO()
    np.save(out, np.array([None], dtype=object))
    for raw in (saved(o=field), out.getvalue()[:-1]):
        assert "a pickle that was not read" in str(opened(raw).dangerous)


def test_objects_that_are_too_many_count_as_dangerous():
    """A pickle that decompresses to more than the limit is not read, and the finding says so."""
    raw = saved(save=np.savez_compressed, o=np.array(["x" * 3_000_000], dtype=object))
    assert "that was not read" in str(opened(raw).verify()[0])
    assert opened(raw, limits=Limits(parsed_bytes=1 << 23)).dangerous == []


@pytest.mark.parametrize("order", "<>")
def test_text_ends_with_unicode(order):
    """A number above U+10FFFF, which is not a character, is refused wherever text is stored."""
    array = np.array(["ab"])
    raw = array.astype(f"{order}U2").tobytes()
    for number, fits in ((0x10FFFF, True), (0x110000, False), (0x3FF00000, False)):
        changed = number.to_bytes(4, "little" if order == "<" else "big") + raw[4:]
        out = io.BytesIO()
        np.save(out, np.frombuffer(raw, f"{order}U2"))
        file = out.getvalue().replace(raw, changed)
        if fits:
            assert opened(file).object == [chr(number) + "b"]
        else:
            with pytest.raises(FormatError, match="which is not a Unicode character"):
                opened(file)


def test_an_array_without_elements_is_not_a_list_of_a_million():
    """A shape such as (2**40, 0) needs no bytes, and a list of it would have 2**40 lists."""
    header = b"{'descr': '<U4', 'fortran_order': False, 'shape': (1099511627776, 0), }"
    raw = b"\x93NUMPY\1\0" + len(header + b"\n").to_bytes(2, "little") + header + b"\n"
    assert type(opened(raw).object) is Opaque


def test_texts_of_a_file_are_limited_together():
    """A letter becomes an object of 60 bytes, so that only so many become lists."""
    raw = saved(save=np.savez_compressed, **{f"t{n}": np.full(60_000, "x") for n in range(3)})
    assert [type(value).__name__ for value in opened(raw).object.values()] == ["list", "Opaque", "Opaque"]


@pytest.mark.parametrize("mark", "=|")
def test_an_order_that_depends_on_the_machine_is_not_read(mark):
    """NumPy writes `<` or `>` for elements of several bytes."""
    out = io.BytesIO()
    np.save(out, np.ones(2))
    assert type(opened(out.getvalue().replace(b"<f8", mark.encode() + b"f8")).object) is Opaque


def test_only_the_beginning_of_a_compressed_array_is_inflated_to_know_it(monkeypatch):
    """Opening an archive takes its headers."""
    sizes = []
    monkeypatch.setattr(_zip, "_inflate", lambda archive, member, stored: sizes.append(member.nbytes))
    found = opened(saved(save=np.savez_compressed, w=np.arange(100_000))).object["w"]
    assert (found.spec.shape, sizes) == ((100_000,), [])
