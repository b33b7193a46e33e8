"""safetensors: the reference library reads our files and we read its files, strictly and with checksums."""

import io
import json
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import formats
from statedict.errors import ChecksumError, FormatError, LimitError, SaveError, TruncatedError
from statedict.formats import Limits
from statedict.formats.safetensors._write import live_tensors
from statedict.state import DTYPES, Compound, contiguous, leaf_of, library, materialize, read_array

torch = pytest.importorskip("torch")
stock = pytest.importorskip("safetensors.torch")

CODES = "float64 float32 float16 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu complex64"
CODES += " bool int64 int32 int16 int8 uint64 uint32 uint16 uint8 float4_e2m1fn_x2"


def tensor_of(name, count=6):
    if name == "bool":
        return torch.arange(count) % 2 == 0
    raw = torch.arange(count * DTYPES[name].itemsize, dtype=torch.int64).to(torch.uint8)
    return raw.view(getattr(torch, name))


def bytes_of(tensor):
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().flatten()
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def same(a, b):
    return (a.dtype, a.shape, bytes_of(a)) == (b.dtype, b.shape, bytes_of(b))


def written(state, **options):
    out = io.BytesIO()
    formats.write(state, out, format="safetensors", **options)
    return out.getvalue()


def opened(raw, **options):
    return formats.open(io.BytesIO(raw), **options)


def loaded(raw):
    state = opened(raw).object
    return dict(zip(state, materialize(list(state.values()), library("torch"))))


@pytest.fixture
def stock_load(tmp_path):
    """The reference reader, on bytes: through a file, since it knows more element types there."""

    def load(raw):
        path = tmp_path / "stock.safetensors"
        path.write_bytes(raw)
        return stock.load_file(path)

    return load


def awkward():
    """A state of views, ties and all element types."""
    base = torch.randn(10, 12)
    state = OrderedDict((name, tensor_of(name)) for name in CODES.split())
    state |= {
        "transposed": base.t(),
        "column": base[:, 3],
        "expanded": torch.randn(1).expand(5),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.5),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "negative": torch.randn(3, dtype=torch.complex64).conj().imag,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "größe": torch.ones(1),
        "": torch.ones(2),
        'quo"te\\': torch.ones(3),
        "large": torch.randn(600_000),
    }
    state["tied"] = state["large"]
    state["column again"] = base[:, 3]
    return state


def test_stock_reads_what_we_write(stock_load):
    """The reference reader finds every name but the further ones of tied tensors, with the same type, shape and elements."""
    state = awkward()
    found = stock_load(written(state))
    assert found.keys() == state.keys() - {"tied", "column again"}
    assert [name for name in found if not same(found[name], state[name])] == []


def test_we_read_what_we_write():
    """Names keep their order, elements their values, ties stay ties, and verifying finds nothing."""
    state = awkward()
    raw = written(state)
    found = loaded(raw)
    assert list(found) == list(state)
    assert [name for name in state if not same(found[name], state[name])] == []
    assert found["large"].data_ptr() == found["tied"].data_ptr()
    assert found["column"].data_ptr() == found["column again"].data_ptr()
    assert found["large"].data_ptr() != found["transposed"].data_ptr()
    checkpoint = opened(raw)
    assert (checkpoint.format, checkpoint.producer, checkpoint.verify(values=False)) == ("safetensors", "statedict", [])


def test_we_read_what_stock_writes():
    """Files of the reference writer give its tensors, and are noted for having no checksums."""
    state = {
        name: tensor.contiguous() for name, tensor in awkward().items() if name not in ("tied", "conjugate", "negative")
    }
    state["expanded"] = state["expanded"].clone()
    del state["column again"]
    raw = stock.save(state, {"format": "pt"})
    found = loaded(raw)
    assert found.keys() == state.keys()
    assert [name for name in state if not same(found[name], state[name])] == []
    checkpoint = opened(raw)
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.notes == ["the file has no checksums: damage to its tensors cannot be detected"]
    assert [finding.level for finding in checkpoint.verify()] == ["note"]


names = st.text(st.characters(exclude_categories=("Cs",)), max_size=8).filter(lambda name: name != "__metadata__")
arrays = st.tuples(
    st.sampled_from(["<f4", "<f8", "<i2", "|u1", "|b1", "<c8"]), st.lists(st.integers(0, 4), max_size=3), st.booleans()
)


@settings(max_examples=60)
@given(
    content=st.dictionaries(names, arrays, max_size=6), metadata=st.dictionaries(names, st.text(max_size=5), max_size=3)
)
def test_load_of_save_is_the_state(content, metadata):
    """Whatever the names, types, shapes and layouts: reading what was written gives the same, here and by the reference."""
    state = {}
    for name, (dtype, shape, turned) in content.items():
        array = (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape)
        state[name] = array.T if turned else array
    metadata = {key: text for key, text in metadata.items() if not key.startswith("statedict.")}
    raw = written(state, metadata=metadata)
    checkpoint = opened(raw)
    assert checkpoint.metadata == {"format": "pt", **metadata}
    assert list(checkpoint.object) == list(state)
    reference = stock.load(raw)
    for name, array in state.items():
        for found in (read_array(checkpoint.object[name]), reference[name].numpy()):
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert (found == array).all()


def test_many_tensors_are_written_as_few_are(stock_load):
    """Plain tensors that are written together have the bytes that they have one by one: entries, order, checksums, names
    of all kinds; what is large among them, too."""
    codes = [code for code in CODES.split() if not code.startswith("float4")]
    sizes = [(n % 5 + 1) * (70_000 if n % 23 == 0 else 3) for n in range(300)]
    names = [f'layer {n} "ü\\\x1f\u2028 {"x" * (n % 40)}' for n in range(300)]
    state = {name: tensor_of(codes[n % len(codes)], sizes[n]) for n, name in enumerate(names)}
    state[names[7]] = torch.tensor(3)
    state[names[8]] = torch.ones(2, 3, 1)
    state[names[9]] = torch.nn.Parameter(torch.ones(2))
    assert live_tensors(state) is not None
    raw = written(state)
    one_by_one = written({name: leaf_of(tensor) for name, tensor in state.items()})
    assert raw == one_by_one
    found = stock_load(raw)
    assert list(loaded(raw)) == names
    assert all(same(found[name], tensor) for name, tensor in state.items())
    opened(raw).verify(values=True)


NOT_TOGETHER = {
    "tied": lambda state: state | {"tied": state["w3"]},
    "a slice": lambda state: state | {"slice": torch.ones(5)[1:]},
    "turned": lambda state: state | {"turned": torch.ones(2, 3).T},
    "empty": lambda state: state | {"empty": torch.ones(0)},
    "a gradient": lambda state: state | {"gradient": torch.ones(2, requires_grad=True)},
}


@pytest.mark.parametrize("name", NOT_TOGETHER)
def test_what_is_not_plain_is_written_one_by_one(name, stock_load):
    """Where any tensor is tied, a view, empty or asks for gradients, each is looked at, and the file is as sound."""
    state = NOT_TOGETHER[name]({f"w{n}": torch.full((n % 3 + 1,), float(n)) for n in range(60)})
    assert live_tensors(state) is None
    raw = written(state)
    found = stock_load(raw)
    assert found.keys() == state.keys() - {"tied"}
    assert all(same(tensor, state[name]) for name, tensor in found.items())
    assert all(same(tensor, state[name]) for name, tensor in loaded(raw).items())
    opened(raw).verify(values=True)


def test_tensors_are_aligned():
    """The tensors begin at a multiple of 64 bytes, the widest first, so that each is aligned to its elements."""
    state = {name: tensor_of(name, 3 if name != "float4_e2m1fn_x2" else 2) for name in reversed(CODES.split())}
    for leaf in opened(written(state)).object.values():
        extent = leaf.storage.where
        assert extent.offset % leaf.spec.dtype.itemsize == 0
    assert min(leaf.storage.where.offset for leaf in opened(written(state)).object.values()) % 64 == 0


def test_equal_content_gives_equal_bytes():
    """Two states with the same content are written as the same bytes."""
    assert written({"a": torch.ones(3), "b": torch.zeros(2)}) == written({"a": torch.ones(3), "b": torch.zeros(2)})


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ([1], "safetensors stores a mapping of names to tensors, not a list"),
        (
            {"model": {"w": np.ones(1)}, "n": 3},
            "'model' is a dict; 'n' is an int. Use the torch format for other values",
        ),
        ({f"n{i}": i for i in range(8)}, "and 3 more"),
        ({1: np.ones(1)}, "1 is not a valid name"),
        ({"__metadata__": np.ones(1)}, "'__metadata__' is not allowed as the name of a tensor"),
        ({"\ud800": np.ones(1)}, "cannot be written as UTF-8"),
        ({"c": np.ones(1, "c16")}, "'c' has the dtype complex128"),
        ({"t": np.array(["ab"])}, "'t' is a ndarray of the dtype <U2"),
        ({"s": Compound("sparse_coo", DTYPES["float32"], (2,), {})}, "'s' is a sparse_coo tensor"),
    ],
)
def test_what_it_cannot_hold_is_refused(tmp_path, state, text):
    """A value or name that the format cannot store is refused, and named."""
    with pytest.raises(SaveError, match=text):
        formats.write(state, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metadata", [{"a": 1}, {"statedict.crc32": "x"}])
def test_metadata_that_does_not_fit_is_refused(metadata):
    """Metadata that the format cannot store, or that uses a reserved key, is refused."""
    with pytest.raises(
        SaveError, match=r"metadata must map strings to strings|keys of the metadata must not begin with 'statedict\.'"
    ):
        written({"a": np.ones(1)}, metadata=metadata)


# damage


def raw_file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BAD = {
    "header too long": (
        raw_file(b"{}", length=100),
        TruncatedError,
        r"the header is 100 bytes long, but the file has only 10",
    ),
    "no object": (raw_file(b"{1:2}"), FormatError, "the header"),
    "extra field": (
        raw_file({"x": {**ONE, "y": 1}}, bytes(4)),
        FormatError,
        "exactly the keys dtype, shape and data_offsets",
    ),
    "dtype": (raw_file({"x": {**ONE, "dtype": "F3"}}, bytes(4)), FormatError, "its dtype 'F3' is not supported"),
    "negative": (raw_file({"x": {**ONE, "shape": [-1]}}, bytes(4)), FormatError, "not a list of non-negative integers"),
    "boolean": (
        raw_file({"x": {**ONE, "shape": [True]}}, bytes(4)),
        FormatError,
        "not a list of non-negative integers",
    ),
    "float": (raw_file({"x": {**ONE, "shape": [1.0]}}, bytes(4)), FormatError, "not a list of non-negative integers"),
    "too large": (
        raw_file({"x": {**ONE, "shape": [2**64]}}, bytes(4)),
        FormatError,
        "not a list of non-negative integers",
    ),
    "span": (raw_file({"x": {**ONE, "shape": [2]}}, bytes(4)), FormatError, r"shape \[2\] has 8 bytes, but .* span 4"),
    "hole": (
        raw_file({"x": {**ONE, "data_offsets": [4, 8]}}, bytes(8)),
        FormatError,
        "unused bytes precede its data",
    ),
    "overlap": (raw_file({"x": ONE, "y": ONE}, bytes(4)), FormatError, "y at byte [0-9]+: its bytes overlap"),
    "trailing": (raw_file({"x": ONE}, bytes(5)), FormatError, "1 bytes follow the last tensor"),
    "truncated": (raw_file({"x": ONE}, bytes(3)), TruncatedError, r"it has \d+ of \d+ bytes"),
    "nibble": (
        raw_file({"x": {**ONE, "dtype": "F4", "shape": [7]}}, bytes(4)),
        FormatError,
        "need an even last dimension",
    ),
    "metadata": (raw_file({"__metadata__": {"a": 1}}), FormatError, "does not map strings to strings"),
    "surrogate": (
        raw_file(b'{"\\ud800":' + json.dumps(ONE).encode() + b"}", bytes(4)),
        FormatError,
        "an unpaired surrogate",
    ),
    "dimensions": (raw_file({"x": {**ONE, "shape": [1] * 65}}, bytes(4)), LimitError, "65 dimensions"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_header_that_is_wrong_says_how(name):
    """Each way in which a header can be wrong is an error that says which."""
    raw, error, text = BAD[name]
    with pytest.raises(error, match=text) as caught:
        opened(raw)
    assert caught.value.file == "<BytesIO>"


def test_a_header_longer_than_allowed_is_not_read():
    """A header beyond the limit is refused by its length alone."""
    with pytest.raises(LimitError, match="json_bytes"):
        opened(raw_file({"x": ONE}, bytes(4)), limits=Limits(json_bytes=10))


@pytest.mark.parametrize("other", ["z", "first.x", "a"])
def test_tied_tensors_are_written_once(other):
    """The metadata maps the other names to the first, as that of `save_model` does; order and ties come back."""
    array = np.arange(3.0)
    state = {"x": array, "y": np.ones(2), other: array}
    raw = written(state | {"last": np.ones(1)}, metadata={"note": "x"})
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert header.keys() == {"__metadata__", "x", "y", "last"}
    assert header["__metadata__"][other] == "x"
    checkpoint = opened(raw)
    assert list(checkpoint.object) == ["x", "y", other, "last"]
    assert checkpoint.state_dict().tied == [("x", other)]
    assert checkpoint.metadata == {"format": "pt", "note": "x"}
    assert written(checkpoint.state_dict()) == raw


def test_a_tied_name_must_be_free_in_the_metadata():
    """The metadata has one entry for each key: a tied tensor of the same name is refused."""
    array = np.arange(3.0)
    for name in ("format", "note", "statedict.x"):
        with pytest.raises(
            SaveError, match=f"'{name}' is tied to 'x', which is recorded in the metadata under its name"
        ):
            written({"x": array, name: array}, metadata={"note": "x"})


class Tied(torch.nn.Module):
    """A model with a tied weight, and one with two names in one module."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.scale = self.factor = torch.nn.Parameter(torch.rand(2))


def test_tied_models_are_exchanged_with_safetensors(tmp_path):
    """`load_model` reads a tied model that we wrote, strictly, and we find the ties in a file of `save_model`."""
    model, ours, theirs = Tied(), tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    formats.write(model.state_dict(), ours)
    other = Tied()
    assert stock.load_model(other, ours) == (set(), [])
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))
    stock.save_model(model, theirs)
    with formats.open(theirs) as checkpoint:
        # The names of one module do not end alike, so this entry could be any text.
        assert checkpoint.state_dict().tied == [("embed.weight", "head.weight")]
        assert checkpoint.metadata == {"scale": "factor"}


def test_metadata_of_others_is_not_taken_for_ties():
    """An entry whose value is not a tensor's name, or whose key ends differently, is metadata."""
    raw = stock.save({"a.weight": torch.ones(2)}, {"note": "a.weight", "b.weight": "c.weight", "a.weight": "a.weight"})
    checkpoint = opened(raw)
    assert list(checkpoint.object) == ["a.weight"]
    assert checkpoint.metadata.keys() == {"note", "b.weight", "a.weight"}


def test_damage_names_the_tensor():
    """A tensor whose bytes changed is named, by reading and by verifying."""
    raw = bytearray(written({"first": np.ones(3), "second": np.zeros(3)}))
    raw[-1] ^= 1
    checkpoint = opened(bytes(raw))
    with pytest.raises(ChecksumError, match=r"<BytesIO>: second: its 24 bytes have changed since they were written"):
        materialize([checkpoint.object["second"]], library("numpy"))
    assert read_array(checkpoint.object["first"]).tolist() == [1, 1, 1]
    assert [(f.level, f.where) for f in checkpoint.verify()] == [("error", "second")]


def test_checksums_of_another_file_are_not_believed():
    """Checksums that another tool copied into a changed file are ignored."""
    raw = written({"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)})
    length = int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8 : 8 + length])["__metadata__"]
    copied = stock.save({"a": torch.full((3,), 7.0), "b": torch.ones(2)}, metadata)
    checkpoint = opened(copied)
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.notes[0].endswith("(those in the metadata belong to another file)")
    assert loaded(copied)["a"].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    "lie", ['{"c":3}', '{"c":-1}', '{"c":true}', '{"a":0}', '{"d":1}', '{"c":0,"e":0}', '{"f":0}', "[1]", "[]", "{"]
)
def test_ties_that_cannot_be_are_refused(lie):
    """Ties between tensors that cannot be tied are refused."""
    from statedict.files import crc32
    from statedict.formats.safetensors._annotations import BEGINNING

    entry = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}'
    tied = '"c":"a","d":"nowhere","e":"b"'
    said = f'"statedict.crc32":"{"0" * 16}","statedict.ties":{json.dumps(lie)},{tied}}},{entry}}}'
    blank = BEGINNING + b'00000000",' + said.encode()
    text = BEGINNING + b"%08x" % crc32(blank) + b'",' + said.encode()
    with pytest.raises(FormatError, match="the checksums and ties in the metadata are malformed"):
        opened(raw_file(text, bytes(12)))


def test_views_are_not_copied(tmp_path):
    """A mapped load gives memory of the file, copied only where it is written to."""
    path = tmp_path / "m.safetensors"
    formats.write({"a": np.ones(1000)}, path)
    with formats.open(path) as checkpoint:
        (mapped,) = materialize(list(checkpoint.object.values()), library("numpy"), mapped=True)
    mapped[0] = 5
    with formats.open(path) as checkpoint:
        assert read_array(checkpoint.object["a"])[0] == 1


def test_leaves_of_other_files_are_written_without_arrays(tmp_path):
    """A file's leaves can be written into another file; nothing but bytes passes through."""
    first, second = tmp_path / "a.pt", tmp_path / "b.safetensors"
    formats.write({"a": torch.randn(300, 1000), "b": torch.ones(2)}, first)
    with formats.open(first) as checkpoint:
        formats.write(checkpoint.object, second)
    assert stock.load_file(second)["a"].equal(torch.load(first)["a"])
    assert leaf_of(torch.ones(2)).spec == contiguous(DTYPES["float32"], (2,))
