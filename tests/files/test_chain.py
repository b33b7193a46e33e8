"""Files of a folder, one after the other, as one File."""

from __future__ import annotations

import pytest

from statedict.errors import FileChangedError, TruncatedError
from statedict.files import FileChain, Folder, Span


@pytest.fixture
def folder(tmp_path):
    for name, data in {"a": b"a" * 70, "b": b"", "c": b"c" * 64, "d": b"ddd"}.items():
        (tmp_path / name).write_bytes(data)
    return Folder(str(tmp_path))


@pytest.fixture
def chain(folder):
    return FileChain(folder, {name: folder.size(name) for name in folder.files})


def test_each_file_begins_at_a_multiple_of_64(chain):
    """Each file begins at a multiple of 64 bytes, after zeros."""
    assert chain.starts == [0, 128, 128, 192]
    assert chain.size == 256
    assert chain.read(0, 256) == b"a" * 70 + bytes(58) + b"c" * 64 + b"ddd" + bytes(61)


@pytest.mark.parametrize(("offset", "nbytes"), [(0, 0), (69, 2), (100, 40), (128, 64), (190, 5), (195, 61)])
def test_any_part_can_be_read(chain, offset, nbytes):
    """A read can begin and end anywhere, in a file or between two."""
    assert chain.read(offset, nbytes) == chain.read(0, chain.size)[offset : offset + nbytes]


def test_several_parts_are_read_in_one_call(chain):
    """The parts of one file are passed on together, in any order."""
    places = [memoryview(bytearray(n)) for n in (2, 3, 4)]
    chain.read_into([Span(at, into) for at, into in zip((130, 60, 0), places)])
    assert [bytes(into) for into in places] == [b"cc", b"aaa", b"aaaa"]


def test_a_read_beyond_the_end_is_refused(chain):
    """The error is that of any other file."""
    with pytest.raises(TruncatedError, match="2 bytes are needed here, but the file has only 256"):
        chain.read(255, 2)


def test_a_file_that_became_shorter_is_named(folder, chain, tmp_path):
    """Sizes are those of the time when the chain was made; a file is opened when it is read."""
    (tmp_path / "c").write_bytes(b"c")
    with pytest.raises(TruncatedError) as caught:
        chain.read(130, 10)
    assert caught.value.file == str(tmp_path / "c")


def test_a_file_that_was_replaced_is_named(folder, chain, tmp_path):
    """The folder notices that another file has the name, if it opens it again."""
    chain.read(0, 1)
    (tmp_path / "a").write_bytes(b"b" * 71)
    with pytest.raises(FileChangedError, match="a: "):
        chain.read(0, 1)


def test_it_has_no_mapping_and_no_neighbours(chain):
    """Only a chain of one file can be mapped; closing the chain closes the folder."""
    assert (chain.mapped(), chain.beside("a"), chain.far) == (None, None, False)
    chain.check_unchanged()
    chain.close()
    with pytest.raises(ValueError, match="has been closed"):
        chain.read(0, 1)
