"""Files that are read: through one descriptor, in batches, and only while they stay what they were."""

import copy
import errno
import io
import os
import pickle
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import files
from statedict.errors import FileChangedError, TruncatedError, UnknownFormatError
from statedict.files import Span

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "content.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=["path", "object", "raw object"])
def file(request, path):
    """The same content as each kind of File."""
    if request.param == "path":
        opened = files.open(path)
    else:
        opened = files.open(io.BytesIO(CONTENT) if request.param == "object" else _Raw(CONTENT))
    yield opened
    opened.close()


class _Raw:
    """A file object that has only `read`, `seek` and `tell`, and gives less than was asked for."""

    def __init__(self, content):
        self._stream = io.BytesIO(content)
        self.closed = False

    def read(self, count):
        return self._stream.read(min(count, 1000))

    def seek(self, place, whence=0):
        return self._stream.seek(place, whence)

    def tell(self):
        return self._stream.tell()


def test_read_gives_exactly_the_bytes_asked_for(file):
    """Reading gives the bytes at the offset, all of them."""
    assert file.size == len(CONTENT)
    assert file.read(1000, 5000) == CONTENT[1000:6000]
    assert file.read(file.size, 0) == b""


@pytest.mark.parametrize(("offset", "nbytes"), [(len(CONTENT), 1), (len(CONTENT) - 3, 4), (-1, 1), (0, -1), (2**70, 1)])
def test_reading_outside_says_where_the_file_ends(file, offset, nbytes):
    """Bytes that the file does not have are never given, whatever was asked for."""
    with pytest.raises(TruncatedError, match=r"the file has only 1,048,576"):
        file.read(offset, nbytes)


spans = st.lists(st.tuples(st.integers(0, len(CONTENT)), st.integers(0, 40_000)), max_size=60)


@settings(max_examples=60)
@given(extents=spans)
def test_batches_fill_every_destination(extents):
    """However spans lie (overlapping, unsorted, empty, far apart), each destination gets its own bytes."""
    for opened in (_LOCAL, files.open(io.BytesIO(CONTENT))):
        wanted = [(at, min(n, len(CONTENT) - at)) for at, n in extents]
        reads = [Span(at, memoryview(bytearray(n))) for at, n in wanted]
        opened.read_into(reads)
        assert [bytes(read.into) for read in reads] == [CONTENT[at : at + n] for at, n in wanted]


@pytest.fixture(scope="module", autouse=True)
def _local(tmp_path_factory):
    global _LOCAL
    path = tmp_path_factory.mktemp("local") / "content.bin"
    path.write_bytes(CONTENT)
    _LOCAL = files.open(path)
    yield
    _LOCAL.close()


def test_a_read_goes_on_where_the_system_gave_less(path, monkeypatch):
    """The system gives 2 GB at a time at most, and may always give less: a read gives all that was asked for."""
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, nbytes, offset: whole(fd, min(nbytes, 1000), offset))
    file = files.open(path)
    assert file.read(10, 5000) == CONTENT[10:5010]
    file.close()


def test_large_batches_are_cut_and_spread(tmp_path):
    """A span larger than a piece arrives whole, and so do thousands of small ones."""
    path = tmp_path / "large.bin"
    content = os.urandom(11 << 20)
    path.write_bytes(content)
    opened = files.open(path)
    large = memoryview(bytearray(10 << 20))
    small = [Span(at, memoryview(bytearray(64))) for at in range(0, 1 << 20, 200)]
    opened.read_into([*small, Span(12345, large)])
    assert large == content[12345 : 12345 + len(large)]
    assert all(read.into == content[read.offset : read.offset + 64] for read in small)
    opened.close()


def test_a_mapping_is_the_content_and_private(path):
    """A mapping shows the file; writing into it does not change the file."""
    opened = files.open(path)
    own = opened.mapped()
    assert own == CONTENT
    own[0] = 77
    assert path.read_bytes()[0] == 0
    opened.close()
    assert own[0] == 77


def test_an_empty_file_can_be_mapped(tmp_path):
    """An empty file is mapped as nothing."""
    (tmp_path / "empty").touch()
    assert len(files.open(tmp_path / "empty").mapped()) == 0


def test_a_file_that_changed_is_noticed(path):
    """A file whose size or modification time has changed is not read as if it were the same."""
    opened = files.open(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(FileChangedError, match="its modification time has changed"):
        opened.read_into([Span(0, memoryview(bytearray(4)))])
    path.write_bytes(CONTENT[:100])
    with pytest.raises(FileChangedError, match=r"content\.bin: the file changed .*its size has changed.*open it again"):
        opened.mapped()
    with pytest.raises(FileChangedError, match="it now ends at byte 100"):
        opened.read(50, 100)
    opened.close()


@pytest.mark.only_on("linux", "macos")
def test_a_replaced_file_stays_the_one_that_was_opened(path):
    """Replacing a file does not change what is read from the one that was opened."""
    opened = files.open(path)
    files.write(path, [files.Frame(3, lambda: b"new")])
    assert opened.read(0, 3) == CONTENT[:3]
    opened.check_unchanged()
    opened.close()


@pytest.mark.only_on("linux", "macos")
def test_only_regular_files_are_opened(tmp_path):
    """A FIFO, a socket, a device or a directory is named as what it is, without waiting for anything."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        (tmp_path / "zero").symlink_to("/dev/zero")
        for name, what in {"fifo": "a FIFO", "zero": "a character device", "": "a directory"}.items():
            with pytest.raises(UnknownFormatError, match=f"this is {what}, not a regular file"):
                files.open(tmp_path / name)
        with pytest.raises(OSError, match="socket"):
            files.open(tmp_path / "socket")


def test_a_closed_file_says_so(path):
    """Reading after close is refused with the file's name; closing twice is fine."""
    opened = files.open(path)
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match=r"content\.bin has been closed; open it again"):
        opened.read_into([Span(0, memoryview(bytearray(1)))])


def test_descriptors_are_given_back(path):
    """A file that nobody holds any more holds no descriptor, and views outlive it."""
    before = len(os.listdir("/proc/self/fd"))
    view = files.open(path).mapped()
    held = len(os.listdir("/proc/self/fd"))
    assert held <= before + 1  # the mapping's own
    assert view[:4] == CONTENT[:4]


def test_a_file_object_is_read_from_where_it_stands():
    """Offsets count from the object's position, which closing restores."""
    stream = io.BytesIO(b"before" + CONTENT)
    stream.seek(6)
    opened = files.open(stream)
    assert (opened.size, opened.read(0, 4)) == (len(CONTENT), CONTENT[:4])
    opened.close()
    assert stream.tell() == 6


@pytest.mark.parametrize("source", [3, None, io.StringIO("text"), object()])
def test_other_sources_are_refused(source):
    """What is neither path nor binary file object is a TypeError that says what is needed."""
    with pytest.raises(TypeError, match="binary"):
        files.open(source)


def test_a_missing_file_is_the_systems_error(tmp_path):
    """A file that is not there is a FileNotFoundError, as from open()."""
    with pytest.raises(FileNotFoundError):
        files.open(tmp_path / "nowhere")


def test_an_open_file_is_not_copied(tmp_path):
    """A deep copy or a pickle of an open file is refused: both would close the same descriptor."""
    (tmp_path / "x.bin").write_bytes(b"abc")
    file = files.open(tmp_path / "x.bin")
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(
            TypeError, match=r"x\.bin is an open file, which cannot be copied or pickled: open it again"
        ):
            copied(file)
    assert file.read(0, 3) == b"abc"
    file.close()


@pytest.mark.only_on("linux", "macos")
def test_a_large_read_is_made_of_calls_of_limited_size(tmp_path, monkeypatch):
    """A read is complete where a call returns fewer bytes (Linux, 2 GB) and where buffers of more are an error (macOS)."""
    most, pread, preadv = 5 << 20, os.pread, os.preadv

    def refusing(fd, buffers, offset):
        if sum(map(len, buffers)) > most:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "pread", lambda fd, nbytes, offset: pread(fd, min(nbytes, most), offset))
    monkeypatch.setattr(os, "preadv", refusing)
    (tmp_path / "large").write_bytes(CONTENT * 6)
    file = files.open(tmp_path / "large")
    assert file.read(3, len(CONTENT) * 6 - 5) == (CONTENT * 6)[3:-2]
    file.close()
