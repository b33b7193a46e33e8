"""FileTensors: leaves of byte ranges, which the readers of plugins make."""

import io
import zlib

import numpy as np
import pytest

from statedict import files
from statedict.errors import ChecksumError, FormatError, LimitError, TruncatedError
from statedict.formats import FileTensors, Limits, read_array
from statedict.state import Box, origins, region

VALUES = np.arange(6, dtype=np.float32)
RAW = b"HEAD" + VALUES.tobytes()


def tensors(raw=RAW, **limits):
    return FileTensors(files.open(io.BytesIO(raw)), Limits(**limits))


def doubled(blocks):
    """Decode blocks of one scale and three numbers, all uint8."""
    return blocks[:, :1].astype(np.float32) * blocks[:, 1:]


@pytest.mark.parametrize(("dtype", "code"), [("float32", "f4"), ("complex64", "c8"), ("int16", "i2"), ("int8", "i1")])
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_a_tensor_of_either_byte_order(dtype, code, byteorder):
    """Elements are in row-major order at an offset, in the byte order that is given."""
    values = np.arange(6).reshape(2, 3).astype(code)
    raw = b"x" + values.astype(values.dtype.newbyteorder("<" if byteorder == "little" else ">")).tobytes()
    leaf = tensors(raw).tensor("w", dtype, (2, 3), 1, byteorder=byteorder)
    assert (leaf.spec.dtype.name, read_array(leaf).tolist()) == (dtype, values.tolist())


def test_checksums_are_compared():
    """A tensor with a checksum is verified when it is read and by `checks`, a decoded one too."""
    found = tensors()
    read_array(found.tensor("good", "float32", (6,), 4, crc=zlib.crc32(RAW[4:])))
    wrong = found.tensor("wrong", "float32", (6,), 4, crc=1)
    blocks = found.decoded("blocks", "float32", (18,), 4, 24, doubled, block=(4, 3), crc=1)
    for leaf in (wrong, blocks):
        with pytest.raises(ChecksumError):
            read_array(leaf)
        with pytest.raises(ChecksumError):
            leaf.storage.source.verify([leaf.storage])
    assert [(finding.level, finding.where) for finding in found.checks()] == [("error", "wrong"), ("error", "blocks")]


def test_a_decoded_tensor_is_read_in_pieces(monkeypatch):
    """Whatever is read of a decoded tensor, a few blocks are decoded at a time, and only those that are needed."""
    monkeypatch.setattr("statedict.formats.storages._decoded.PIECE", 24)
    raw = np.random.default_rng(0).integers(0, 99, (7, 4), dtype=np.uint8)
    seen = []

    def decode(blocks):
        seen.append(len(blocks))
        return doubled(blocks)

    expected = doubled(raw).reshape(3, 7)
    leaf = tensors(raw.tobytes()).decoded("w", "float32", (3, 7), 0, 28, decode, block=(4, 3))
    assert read_array(leaf).tolist() == expected.tolist()
    assert seen == [2, 2, 2, 1]
    seen.clear()
    assert read_array(region(leaf, Box((1, 2), (1, 2)))).tolist() == expected[1:2, 2:4].tolist()
    assert seen == [1]
    part = region(leaf, Box((1, 0), (1, 7)))
    assert [(storage.nbytes, start, stop) for storage, start, stop in origins(part)] == [(28, 8, 20)]


def test_a_tensor_in_parts():
    """The elements of several byte ranges are one tensor; regions of it are read like those of any other."""
    found = tensors()
    parts = [found.tensor("b", "float32", (4,), 12), found.tensor("a", "float32", (2, 1), 4)]
    leaf = found.joined("w", (2, 3), parts)
    assert read_array(leaf).tolist() == [[2, 3, 4], [5, 0, 1]]
    assert read_array(region(leaf, Box((1, 1), (1, 2)))).tolist() == [[0, 1]]


def test_a_decoded_tensor_without_elements():
    """A decoded tensor can be empty."""
    leaf = tensors().decoded("w", "float32", (0, 3), 4, 0, doubled, block=(4, 3))
    assert read_array(leaf).shape == (0, 3)


REFUSED = {
    "twice": (lambda t: [t.tensor("w", "int8", (1,), 0) for _ in range(2)], FormatError, "two tensors of this name"),
    "bytes": (
        lambda t: t.tensor("w", "float32", (2,), 4, 9),
        FormatError,
        r"a float32 tensor of shape \[2\] has 8 bytes, not 9",
    ),
    "shape": (lambda t: t.tensor("w", "float32", (-1,), 4), FormatError, r"\[-1\] is not a shape"),
    "size": (lambda t: t.tensor("w", "float32", (1.0,), 4), FormatError, r"\[1.0\] is not a shape"),
    "dtype": (lambda t: t.tensor("w", "float33", (1,), 4), FormatError, "'float33' is not a dtype"),
    "offset": (lambda t: t.tensor("w", "float32", (1,), -4), FormatError, "its offset is -4"),
    "end": (
        lambda t: t.tensor("w", "float32", (6,), 8),
        TruncatedError,
        "its bytes 8 to 32 are not in the file, which has 28",
    ),
    "dimensions": (lambda t: t.tensor("w", "float32", (1,) * 99, 4), LimitError, "a tensor of 99 dimensions"),
    "impossible": (lambda t: t.tensor("w", "float32", (0, 2**62, 2**62), 4), FormatError, "impossible shape"),
    "parts": (
        lambda t: t.joined("w", (2, 3), [t.tensor("a", "float32", (5,), 4)]),
        FormatError,
        r"its 1 parts are not those of a float32 tensor of shape \[2, 3\]",
    ),
    "no parts": (lambda t: t.joined("w", (0,), []), FormatError, "'' is not a dtype"),
    "blocks": (
        lambda t: t.decoded("w", "float32", (7,), 4, 12, doubled, block=(4, 3)),
        FormatError,
        "7 elements in blocks of 3 elements and 4 bytes do not have 12 bytes",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_tensor_that_the_file_cannot_contain_is_refused(what):
    """What a file says about a tensor is checked when the leaf is made, and the error names it."""
    make, error, text = REFUSED[what]
    with pytest.raises(error, match=f": w: .*{text}|{text}.*: w") as caught:
        make(tensors())
    assert (caught.value.file, caught.value.member) == ("<BytesIO>", "w")


FAILING = {
    "raises": (lambda blocks: blocks["x"], "failed: IndexError: only integers"),
    "too many": (lambda blocks: blocks, "failed: it returned 4 elements for 1 blocks of 3"),
    "refuses": (lambda blocks: refuse(), "not this one"),
}


def refuse():
    raise FormatError("not this one")


@pytest.mark.parametrize("what", FAILING)
def test_a_function_that_fails_to_decode_is_told_with_the_tensor(what):
    """The error of a decoding function names the file and the tensor."""
    decode, text = FAILING[what]
    leaf = tensors().decoded("w", "float32", (3,), 4, 4, decode, block=(4, 3))
    with pytest.raises(FormatError, match=f"<BytesIO>: w: .*{text}"):
        read_array(leaf)
