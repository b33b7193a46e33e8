"""CRC-32: the same as zlib's, of pieces put together, and of many extents at once."""

import io
import os
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict import files
from statedict.files import _checksum
from statedict.files._checksum import ScatteredSum, whole_sum


@given(data=st.binary(max_size=2000), cut=st.integers(0, 2000))
def test_it_is_zlibs_and_combines(data, cut):
    """The checksum is zlib's, can go on from a piece, and two pieces' make the whole's."""
    first, second = data[:cut], data[cut:]
    assert files.crc32(data) == zlib.crc32(data)
    assert files.crc32(second, files.crc32(first)) == zlib.crc32(data)
    assert files.combine(files.crc32(first), files.crc32(second), len(second)) == zlib.crc32(data)


def test_without_isal_it_is_the_same(monkeypatch):
    """If isal is not installed, zlib computes the same checksums."""
    monkeypatch.setattr(_checksum, "_crc32", zlib.crc32)
    assert files.crc32(b"statedict") == zlib.crc32(b"statedict")


@pytest.mark.parametrize("kind", ["path", "file object"])
def test_of_many_extents(tmp_path, kind):
    """Each extent's checksum is that of its bytes: small, empty and larger than a piece, in any order, overlapping."""
    content = os.urandom(10_000_000)
    path = tmp_path / "content.bin"
    path.write_bytes(content)
    opened = files.open(io.BytesIO(content) if kind == "file object" else path)
    extents = [(5, 9_999_000), (0, 0), (17, 3), (100, 4 << 20), (0, 1 << 20), (9_999_999, 1)] + [
        (n, 64) for n in range(500)
    ]
    expected = [zlib.crc32(content[at : at + n]) for at, n in extents]
    assert files.checksums(opened, extents) == expected
    assert files.checksums_of([memoryview(content)[at : at + n] for at, n in extents]) == expected
    spans = [files.Span(at, memoryview(bytearray(n))) for at, n in extents]
    assert files.read_checked(opened, spans) == expected
    assert all(into == content[at : at + len(into)] for at, into in spans)
    opened.close()


@given(sizes=st.lists(st.sampled_from([0, 1, 5, 64, 20_000]), max_size=60))
def test_in_columns(sizes):
    """Extents in columns have the checksums that they have one by one: many of a length, few, empty and large ones."""
    np = pytest.importorskip("numpy")
    content = os.urandom(64) * 10_000
    offsets = np.array([(7919 * number) % 600_000 for number in range(len(sizes))], np.int64)
    expected = [zlib.crc32(content[start : start + size]) for start, size in zip(offsets.tolist(), sizes)]
    assert files.checksums_within(memoryview(content), offsets, np.array(sizes, np.int64)).tolist() == expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=12), st.data())
def test_shares_of_scattered_runs_add_up(data, cuts, draw):
    """Whoever has which run of the bytes, the shares together give the CRC-32 of the whole."""
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    sums = [ScatteredSum() for _ in range(3)]
    for start, stop in pairwise(borders):
        sums[draw.draw(st.integers(0, 2))].add(start, data[start:stop])
    assert whole_sum([each.closed(len(data)) for each in sums], len(data)) == files.crc32(data)
