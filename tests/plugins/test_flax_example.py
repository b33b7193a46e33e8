"""The example of a plugin that is a distribution of its own: Flax msgpack files.

The hexadecimal files are those of Flax 0.12.8.
"""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import statedict
from statedict import files
from statedict.errors import FormatError, LimitError, SaveError, TruncatedError, UnknownFormatError
from statedict.formats import LIMITS, Limits, leaves, read_array
from statedict.formats._format import close_with
from statedict.testing import FormatSuite
from statedict.testing.format_laws._recording_file import RecordingFile

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "statedict-flax"
# msgpack_serialize({"params": {"Dense_0": {"kernel": …, "bias": …}}, "step": np.int32(7), "epoch": 3, "z": 1 + 2j,
#                    "name": "x", "rates": [0.5, None, True, -300]})
SMALL = bytes.fromhex(
    "86a565706f636803a46e616d65a178a6706172616d7381a744656e73655f3082a462696173c71401939103a862666c6f61743136c406803f803f80"
    "3fa66b65726e656cc7260193920203a7666c6f61743332c418000000000000803f0000004000004040000080400000a040a5726174657394cb3fe0"
    "000000000000c0c3d1fed4a473746570c70e039390a5696e743332c40407000000a17ac7130292cb3ff0000000000000cb4000000000000000"
)
# msgpack_serialize({"a": {"w": np.arange(15, dtype="f4").reshape(3, 5)}, "s": np.float32(2.5)}) with MAX_CHUNK_SIZE = 16
CHUNKED = bytes.fromhex(
    "82a16181a17783b95f5f6d73677061636b5f6368756e6b65645f61727261795f5fc3a5736861706582a13003a13105a66368756e6b7384a130c7"
    "1d01939104a7666c6f61743332c410000000000000803f0000004000004040a131c71d01939104a7666c6f61743332c410000080400000a04000"
    "00c0400000e040a132c71d01939104a7666c6f61743332c41000000041000010410000204100003041a133c71901939103a7666c6f61743332c4"
    "0c000040410000504100006041a173d8039390a7666c6f61743332c40400002040"
)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A directory on the path in which the example is installed: its module and the metadata of its distribution."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    site = tmp_path / "site"
    info = site / f"statedict_flax-{project['version']}.dist-info"
    info.mkdir(parents=True)
    shutil.copy(EXAMPLE / "statedict_flax.py", site)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["statedict.formats"]
    (info / "entry_points.txt").write_text(
        "[statedict.formats]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
    )
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("statedict_flax", None)


@cache
def plugin():
    spec = importlib.util.spec_from_file_location("statedict_flax", EXAMPLE / "statedict_flax.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FORMAT


class TestFlax(FormatSuite):
    """The laws of every format; the plugin is loaded from its file."""

    format = "flax"
    dtypes = [name for name in FormatSuite.dtypes if name != "complex128"]
    metadata = ties = checksums = False
    copies = 200

    def open(self, source):
        file = source if isinstance(source, RecordingFile) else files.open(source)
        try:
            return close_with(plugin().read(file, LIMITS), file)
        except FormatError as error:
            raise error.located(file=file.name) from None

    def write(self, state, metadata):
        parts = plugin().write(statedict.StateDict(state), {})
        return b"".join(part if isinstance(part, bytes) else read_array(part).tobytes() for part in parts)


def opened(raw, **limits):
    return statedict.open(io.BytesIO(raw), limits=Limits(**limits))


def saved(tree):
    file = io.BytesIO()
    statedict.save(tree, file, format="flax")
    return file.getvalue()


def test_the_plugin_is_found_from_outside(site, tmp_path):
    """In another process, a file that the package does not know is read and written once the plugin is installed."""
    (tmp_path / "a.msgpack").write_bytes(SMALL)
    commands = [
        ["inspect", "a.msgpack"],
        ["convert", "a.msgpack", "b.safetensors"],
        ["convert", "b.safetensors", "c.msgpack"],
        ["diff", "b.safetensors", "c.msgpack"],
        ["verify", "c.msgpack"],
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "statedict", *command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])},
        )
        assert done.returncode == 0, done.stderr


def test_without_the_plugin_the_file_is_named_with_it():
    """A Flax file is not read without the plugin, and the error names the plugin."""
    with pytest.raises(
        UnknownFormatError, match=r"a msgpack file \(Flax\), not a checkpoint \(install the plugin statedict-flax"
    ):
        opened(SMALL)


def test_a_file_of_flax_is_read(site):
    """Arrays, scalars of NumPy, complex numbers and plain values are those that Flax saved."""
    with opened(SMALL) as checkpoint:
        tree = checkpoint.object
        assert checkpoint.format == "flax"
        assert {path: read_array(leaf).tolist() for path, leaf in leaves(tree)} == {
            "params/Dense_0/bias": [1, 1, 1],
            "params/Dense_0/kernel": [[0, 1, 2], [3, 4, 5]],
            "step": 7,
        }
        assert tree["params"]["Dense_0"]["bias"].spec.dtype.name == "bfloat16"
        assert {name: tree[name] for name in ("epoch", "z", "name", "rates")} == {
            "epoch": 3,
            "z": 1 + 2j,
            "name": "x",
            "rates": [0.5, None, True, -300],
        }


def test_an_array_in_chunks_is_one_tensor(site):
    """Flax stores large arrays in chunks."""
    with opened(CHUNKED) as checkpoint:
        assert read_array(checkpoint.object["a"]["w"]).tolist() == np.arange(15).reshape(3, 5).tolist()
        assert read_array(checkpoint.object["s"]) == 2.5


def test_a_file_is_written_as_flax_does(site):
    """The bytes are those of Flax for a tree of the same order; scalars of NumPy are written as arrays."""
    tree = {
        "epoch": 3,
        "name": "x",
        "params": {
            "Dense_0": {"bias": np.ones(3, ml_dtypes.bfloat16), "kernel": np.arange(6, dtype="f4").reshape(2, 3)}
        },
        "rates": [0.5, None, True, -300],
        "step": np.array(7, np.int32),
        "z": 1 + 2j,
    }
    assert saved(tree) == SMALL.replace(b"\xc7\x0e\x03", b"\xc7\x0e\x01")


def test_what_was_written_is_read(site):
    """Values at the edges of MessagePack's kinds come back."""
    tree = {
        "numbers": [0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**64 - 1, -1, -32, -33, -129, -32769, -(2**31) - 1],
        "texts": ["", "x" * 31, "x" * 32, "x" * 256, "x" * 65536],
        "list": list(range(16)),
        "map": {str(n): n for n in range(16)},
    }
    arrays = {str(n): np.arange(n, dtype=np.uint8) for n in (0, 1, 2, 3, 4, 5, 40, 255, 256, 65536)}
    with opened(saved({**tree, "arrays": arrays})) as checkpoint:
        assert {name: checkpoint.object[name] for name in tree} == tree
        assert {name: read_array(leaf).tolist() for name, leaf in checkpoint.object["arrays"].items()} == {
            name: array.tolist() for name, array in arrays.items()
        }


@pytest.mark.parametrize("raw", [SMALL, CHUNKED])
def test_every_truncation_is_refused(raw):
    """A file that ends early is refused, and so are bytes after its end."""
    for size in range(2, len(raw)):
        with pytest.raises(FormatError):
            TestFlax().open(io.BytesIO(raw[:size]))
    with pytest.raises(FormatError, match="1 bytes follow the value"):
        TestFlax().open(io.BytesIO(raw + b"\0"))


def array(shape=b"\x91\x01", dtype=b"\xa5uint8", data=b"\xc4\x01\0"):
    inner = b"\x93" + shape + dtype + data
    return b"\x81\xa1w\xc7" + bytes([len(inner)]) + b"\x01" + inner


REFUSED = {
    "deep": (b"\x81\xa1a" + b"\x91" * 200, FormatError, "nested more than 100 deep"),
    "code": (b"\x81\xa1a\xc1", FormatError, "no value begins with the byte 0xc1"),
    "key": (b"\x82\xa1a\x01\xc0\x01", FormatError, "a key in '' is not text, or is there twice"),
    "key twice": (b"\x82\xa1a\x01\xa1a\x01", FormatError, "is there twice"),
    "text": (b"\x81\xa1a\xa1\xff", FormatError, "a text is not valid UTF-8"),
    "kind": (b"\x81\xa1a\xd4\x09\x00", FormatError, "the value at 'a' is of the unknown kind 9"),
    "complex": (b"\x81\xa1a\xd4\x02\x00", FormatError, "the value at 'a' is of the unknown kind 2"),
    "parts": (array(dtype=b"\x05"), FormatError, "the array at 'w' is not a shape, a dtype and bytes"),
    "end": (array().replace(b"\xc7\x0c", b"\xc7\x0b") + b"\0", FormatError, "the value at 'w' ends at byte"),
    "bytes": (array(shape=b"\x91\x02"), FormatError, r"w: a uint8 tensor of shape \[2\] has 2 bytes, not 1"),
    "size": (array(shape=b"\x91\xa1x"), FormatError, r"w: \['x'\] is not a shape"),
    "dtype": (array(dtype=b"\xa4text"), FormatError, "w: 'text' is not a dtype"),
    "outside": (
        array(data=b"\xc6\x7f\0\0\0", shape=b"\x91\xce\x7f\0\0\0"),
        TruncatedError,
        "w: its bytes .* are not in the file",
    ),
    "chunks": (b"\x81\xb9__msgpack_chunked_array__\xc3", FormatError, "the array in chunks at '' does not have chunks"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_file_is_refused_with_the_reason(site, what):
    """What is wrong is said, with the name of the array or the offset."""
    raw, error, text = REFUSED[what]
    with pytest.raises(error, match=text):
        opened(raw)


def test_the_length_of_texts_is_limited(site):
    """Text is compared with `Limits`."""
    with pytest.raises(LimitError, match="a string of 5 bytes"):
        opened(SMALL, string_bytes=4)


UNFIT = {
    "metadata": ({}, {"a": "b"}, "a Flax file cannot store metadata"),
    "key": ({1: 2}, None, "the tree has the key 1, which is not text"),
    "value": ({"a": {"b": object()}}, None, "the tree/a/b is a object, which a Flax file cannot store"),
    "integer": ({"a": 2**64}, None, "the tree/a is a int, which a Flax file cannot store"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_the_format_cannot_store_is_refused(site, what):
    """A value that does not fit is named before anything is written."""
    tree, metadata, text = UNFIT[what]
    with pytest.raises(SaveError, match=text):
        statedict.save(tree, io.BytesIO(), format="flax", metadata=metadata)


def test_an_array_that_flax_would_chunk_is_refused(site):
    """Arrays over a gibibyte are not written; nothing is allocated to find out."""
    large = np.broadcast_to(np.float32(0), (1 << 29,))
    with pytest.raises(SaveError, match="the tree/w has 2,147,483,648 bytes: arrays over 1,073,741,824 bytes"):
        saved({"w": large})
