"""GGUF files: what is read, with which values, and what is refused."""

import io
import math
import subprocess
import sys
import zlib

import numpy as np
import pytest
from tests.hostile.build.gguf import Tensor, Typed, gguf
from tests.plugins.blocks import KINDS, blocks_of

import statedict
from statedict.errors import FormatError, LimitError, TruncatedError, UnknownFormatError
from statedict.formats import Limits, leaves, read_array
from statedict.state import Box, region

PLAIN = {
    0: ("float32", "f4"),
    1: ("float16", "f2"),
    24: ("int8", "i1"),
    25: ("int16", "i2"),
    26: ("int32", "i4"),
    27: ("int64", "i8"),
    28: ("float64", "f8"),
    30: ("bfloat16", "u2"),
}


def opened(*tensors, **options):
    return statedict.open(io.BytesIO(gguf(tensors, **options)))


def quantised(kind, raw=None):
    raw = blocks_of(kind) if raw is None else raw
    count = 256 if kind.endswith(("_K", "_XS")) else 32
    return Tensor(kind, (4, len(raw) // 4 * count), KINDS[kind].number, raw.tobytes())


def array(checkpoint, name):
    return read_array(checkpoint.object[name])


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_tensors_have_the_values_of_llama_cpp(kind):
    """Decoded blocks are those of the package `gguf`, to the last bit."""
    with opened(quantised(kind)) as checkpoint:
        values = array(checkpoint, kind)
        assert values.dtype == np.float32
        assert zlib.crc32(values.tobytes()) == KINDS[kind].crc


@pytest.mark.parametrize("kind", KINDS)
def test_any_blocks_are_decoded_as_the_package_gguf_does(kind):
    """The package `gguf` decodes the same values from random bytes; some scales are infinite or not a number."""
    quants = pytest.importorskip("gguf.quants")
    raw = np.random.default_rng(0).integers(0, 256, (64, KINDS[kind].nbytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(raw, quants.GGMLQuantizationType[kind])
    with opened(quantised(kind, raw)) as checkpoint:
        assert array(checkpoint, kind).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_a_quantised_tensor_is_that_part(kind):
    """Rows, and elements that begin and end within blocks, are those of the whole tensor."""
    with opened(quantised(kind)) as checkpoint:
        leaf, whole = checkpoint.object[kind], array(checkpoint, kind)
        for start, stop in ((1, 3), (0, 4), (3, 4)):
            part = region(leaf, Box((start, 5), (stop - start, 40)))
            assert read_array(part).tobytes() == np.ascontiguousarray(whole[start:stop, 5:45]).tobytes()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("Q5_0", "Q5_1", "IQ4_XS")])
def test_quantised_tensors_of_the_other_byte_order(kind):
    """In a big-endian file the float16 numbers of a block are big-endian, and the values the same."""
    raw = blocks_of(kind)
    for at in KINDS[kind].halves:
        raw[:, at : at + 2] = raw[:, at : at + 2][:, ::-1]
    with opened(quantised(kind, raw), order=">") as checkpoint:
        assert zlib.crc32(array(checkpoint, kind).tobytes()) == KINDS[kind].crc


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [2, 3])
def test_plain_tensors_are_views_of_the_file(order, version):
    """Numbers of each kind have their own dtype and the shape that NumPy and PyTorch would give them."""
    values = {number: np.arange(6, dtype=code).reshape(2, 3) for number, (_, code) in PLAIN.items()}
    tensors = [
        Tensor(PLAIN[number][0], (2, 3), number, value.astype(f"{order}{PLAIN[number][1]}").tobytes())
        for number, value in values.items()
    ]
    with opened(*tensors, order=order, version=version) as checkpoint:
        for (number, value), (path, leaf) in zip(values.items(), leaves(checkpoint.object)):
            assert (path, leaf.spec.dtype.name, leaf.spec.shape) == (PLAIN[number][0], PLAIN[number][0], (2, 3))
            assert read_array(leaf).view(value.dtype).tolist() == value.tolist()


def test_metadata_is_text(tmp_path):
    """Text of the metadata is as it is, other values are JSON, and a conversion keeps them."""
    values = {
        "general.name": "a\nb",
        "count": Typed("I", 32),
        "rate": Typed("f", 0.5),
        "flag": Typed("?", True),
        "tokens": ["a", "é"],
        "types": Typed("i", [1, -2]),
        "nested": [Typed("B", [1]), Typed("B", [])],
    }
    expected = {
        "general.name": "a\nb",
        "count": "32",
        "rate": "0.5",
        "flag": "true",
        "tokens": '["a", "é"]',
        "types": "[1, -2]",
        "nested": "[[1], []]",
    }
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(metadata=values))
    with statedict.open(path) as checkpoint:
        assert checkpoint.metadata == expected
        statedict.save(checkpoint.state_dict(), tmp_path / "a.safetensors")
    with statedict.open(tmp_path / "a.safetensors") as checkpoint:
        assert checkpoint.texts == expected


@pytest.mark.parametrize("order", "<>")
def test_the_files_of_these_tests_are_those_of_the_package_gguf(tmp_path, order):
    """The package `gguf` writes the same bytes as the builder of these tests."""
    package = pytest.importorskip("gguf")
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    blocks = blocks_of("Q8_0")
    endian = package.GGUFEndian.LITTLE if order == "<" else package.GGUFEndian.BIG
    writer = package.GGUFWriter(tmp_path / "a.gguf", "llama", endianess=endian)
    writer.add_uint32("n", 3)
    writer.add_array("tokens", ["a", "é"])
    writer.add_array("scores", [0.5, 2.0])
    writer.add_custom_alignment(64)
    writer.add_tensor("weight", weight.copy())
    writer.add_tensor("blocks", blocks, raw_dtype=package.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = {
        "general.architecture": "llama",
        "n": Typed("I", 3),
        "tokens": ["a", "é"],
        "scores": Typed("f", [0.5, 2.0]),
        "general.alignment": Typed("I", 64),
    }
    tensors = [
        Tensor("weight", (2, 3), 0, weight.astype(f"{order}f4").tobytes()),
        Tensor("blocks", (40, 32), KINDS["Q8_0"].number, blocks.tobytes()),
    ]
    assert (tmp_path / "a.gguf").read_bytes() == gguf(tensors, metadata, order=order, alignment=64)


def test_tensors_of_other_kinds_are_named_when_they_are_read():
    """A kind that is not supported does not keep the other tensors from being read; a kind without a name neither."""
    others = Tensor("a", (2, 256), 16, bytes(132)), Tensor("b", (64,), 99, bytes(40)), Tensor("w")
    with opened(*others) as checkpoint:
        assert array(checkpoint, "w").tolist() == [1, 2, 3, 4]
        assert checkpoint.object["a"].spec.shape == (2, 256)
        assert "tensors cannot be read: 1 IQ2_XXS, 1 99" in checkpoint.notes
        with pytest.raises(FormatError, match=r": a: its elements are of the kind IQ2_XXS, which is not supported \("):
            array(checkpoint, "a")
        with pytest.raises(FormatError, match=": b: its elements are of the kind 99, which is not supported"):
            array(checkpoint, "b")


def test_a_file_of_the_command_line_is_converted(tmp_path):
    """`statedict convert`, `diff` and `verify` read GGUF files."""
    (tmp_path / "a.gguf").write_bytes(gguf([quantised("Q4_0"), Tensor()]))
    for command in (["convert", "a.gguf", "a.safetensors"], ["diff", "a.gguf", "a.safetensors"], ["verify", "a.gguf"]):
        done = subprocess.run(
            [sys.executable, "-m", "statedict", *command], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "sound" in done.stdout


def test_the_parts_of_a_model_are_read_together(tmp_path):
    """The directory of a model that was split is read as one; one of its files is noted to be a part."""
    for number in (0, 1):
        split = {"split.no": Typed("H", number), "split.count": Typed("H", 2)}
        path = tmp_path / f"m-0000{number + 1}-of-00002.gguf"
        path.write_bytes(gguf([Tensor(f"w{number}")], {**split, "general.name": "m"}))
    with statedict.open(tmp_path) as checkpoint:
        assert list(checkpoint.state_dict()) == ["w0", "w1"]
        assert checkpoint.texts["general.name"] == "m"
    with statedict.open(path) as checkpoint:
        assert "this is one of 2 parts of a model: open the directory to read all of them" in checkpoint.notes


def test_a_directory_with_one_model_is_opened(tmp_path):
    """A directory with one GGUF file, and nothing that is preferred to it, is that file."""
    (tmp_path / "m.gguf").write_bytes(gguf())
    with statedict.open(tmp_path) as checkpoint:
        assert checkpoint.format == "gguf"


def test_opening_reads_the_header_only(tmp_path):
    """A file is opened without its tensors, and listed without numpy."""
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf([quantised("Q4_0"), Tensor("large", (1 << 20,), 0, bytes(4 << 20))]))
    code = (
        "import sys, statedict\n"
        "with statedict.open(sys.argv[1]) as checkpoint: state = checkpoint.state_dict(); print(*state)\n"
        "assert 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout.split() == ["Q4_0", "large"], done.stderr


def test_every_truncation_is_refused():
    """A file that ends early is never read as if it were whole."""
    raw = gguf([Tensor("a"), quantised("Q4_0")], {"name": "x", "list": ["a"], "n": Typed("I", 1)})
    for size in range(1, len(raw) - 40 * 18 % 32):
        with pytest.raises(FormatError):
            statedict.open(io.BytesIO(raw[:size]))


REFUSED = {
    "version": (
        gguf(version=4),
        UnknownFormatError,
        "this is a GGUF file of version 4, which is not supported; versions 2 and 3 are",
    ),
    "text": (gguf(metadata=[(b"\xff", "x")]), FormatError, "a text in the header is not valid UTF-8"),
    "key twice": (gguf(metadata=[("a", "x"), ("a", "y")]), FormatError, "the metadata has the name 'a' twice"),
    "type": (gguf(metadata={"a": b"\x0d\0\0\0"}), FormatError, "the metadata has a value of the unknown type 13"),
    "alignment": (
        gguf(metadata={"general.alignment": Typed("I", 3)}),
        FormatError,
        "the alignment is 3, which is not a power of two",
    ),
    "header": (gguf([], counts=(1, None)), TruncatedError, r"at byte \d+: the header needs [\d,]+ more bytes"),
    "name twice": (gguf([Tensor(), Tensor()]), FormatError, "w: the file has two tensors of this name"),
    "overlap": (gguf([Tensor(), Tensor("v", offset=0)]), FormatError, "v: its bytes overlap those of 'w'"),
    "aligned": (gguf([Tensor(offset=8)]), FormatError, "w: its offset 8 is not a multiple of the alignment 32"),
    "outside": (
        gguf([Tensor(offset=64)]),
        TruncatedError,
        r"w: its bytes \d+ to \d+ are not in the file, which has \d+",
    ),
    "rows": (
        gguf([Tensor(shape=(2, 16), kind=2, data=bytes(18))]),
        FormatError,
        "w: rows of 16 elements are not made of blocks of 32",
    ),
    "too few": (gguf([Tensor(shape=(999,), kind=99)]), FormatError, r"w: \d+ bytes are too few for a tensor of .*999"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_file_is_refused_with_the_reason(what):
    """What is wrong with a file is said, with the name of the tensor or the offset in the header."""
    raw, error, text = REFUSED[what]
    with pytest.raises(error, match=text):
        statedict.open(io.BytesIO(raw))


LIMITED = {
    "string_bytes": (3, gguf(metadata={"a": "text"}), "a string of 4 bytes"),
    "json_depth": (1, gguf(metadata={"a": [Typed("B", [1])]}), "metadata nested 2 deep"),
    "dimensions": (1, gguf([Tensor(shape=(2, 2))]), "a tensor of 2 dimensions"),
    "json_bytes": (99, gguf(metadata={"a": "x" * 99}), "a header of at least"),
}


@pytest.mark.parametrize("limit", LIMITED)
def test_what_reading_costs_is_limited(limit):
    """Text, nesting, dimensions and the header are compared with `Limits`."""
    value, raw, text = LIMITED[limit]
    with pytest.raises(LimitError, match=text):
        statedict.open(io.BytesIO(raw), limits=Limits(**{limit: value}))


def test_a_model_loads_the_weights(tmp_path):
    """`load_state_dict` fills a model from a GGUF file, whose scales make floats of its numbers."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(256, 2)
    raw = blocks_of("Q6_K")[:2]
    bias = Tensor("bias", (2,), 0, np.array([1, 2], np.float32).tobytes())
    (tmp_path / "a.gguf").write_bytes(gguf([Tensor("weight", (2, 256), 14, raw.tobytes()), bias]))
    statedict.load_state_dict(model, tmp_path / "a.gguf")
    with statedict.open(tmp_path / "a.gguf") as checkpoint:
        assert model.weight.detach().numpy().tobytes() == array(checkpoint, "weight").tobytes()
    assert math.isclose(model.bias[1].item(), 2)


def test_bytes_after_the_last_tensor_are_noted():
    """What follows the last tensor, beyond the alignment, is not read; a note says so."""
    for more, notes in ((b"", 0), (b"more", 1)):
        with statedict.open(io.BytesIO(gguf([Tensor("w")]) + more)) as checkpoint:
            assert checkpoint.notes.count("4 bytes after the last tensor were not read") == notes


def test_a_closed_file_cannot_be_read(tmp_path):
    """`close` of the checkpoint closes the file."""
    (tmp_path / "m.gguf").write_bytes(gguf([Tensor("w")]))
    with statedict.open(tmp_path / "m.gguf") as checkpoint:
        leaf = checkpoint.object["w"]
    with pytest.raises(ValueError, match="closed"):
        read_array(leaf)
