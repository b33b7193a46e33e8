"""Large durable files are written past the page cache: completely, whatever the file system can, and all or nothing."""

import errno
import os
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import files
from statedict.files import Frame, Payload, System, _direct, _output
from statedict.files._direct import ALIGNMENT, DirectWriter

OLD = b"the old file"
CONTENT = os.urandom(1 << 20) * 3 + b"not a multiple of a block"
pytestmark = pytest.mark.skipif(_output.WRITE_DIRECT is None, reason="this system cannot write past the page cache")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Files of a megabyte are large."""
    monkeypatch.setattr(_output, "DIRECT", 1 << 20)
    monkeypatch.setattr(_direct, "BUFFER", 64 << 10)
    monkeypatch.setattr(_direct, "SHORTEST", 8 << 10)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(OLD)
    return path


def parts():
    crcs = []
    payload = Payload(len(CONTENT), lambda: [memoryview(CONTENT)[:5], memoryview(CONTENT)[5:]], crcs.append)
    return [Frame(4, lambda: crcs[-1].to_bytes(4, "little"), last=True), payload]


EXPECTED = files.crc32(CONTENT).to_bytes(4, "little") + CONTENT


class Watched(System):
    """A System that knows the descriptors past the page cache and what was written with them."""

    def __init__(self, fault=None):
        self.direct, self.written, self.fault = [], [], fault

    def open(self, path, flags, mode=0o666):
        fd = super().open(path, flags & ~getattr(os, "O_DIRECT", 0), mode)
        if flags == _output.WRITE_DIRECT:
            self.direct.append(fd)
        return fd

    def write(self, fd, buffers, offset):
        if fd not in self.direct:
            return super().write(fd, buffers, offset)
        if self.fault is not None:
            buffers = self.fault(buffers)
        self.written.append((offset, sum(map(len, buffers))))
        return super().write(fd, buffers, offset)


def test_the_system_is_asked_for_aligned_blocks(path):
    """All complete blocks of a durable file are written past the page cache, by threads that end with the save."""
    system = Watched()
    files.write(path, parts(), system=system)
    assert path.read_bytes() == EXPECTED
    assert all(offset % ALIGNMENT == nbytes % ALIGNMENT == 0 for offset, nbytes in system.written)
    assert sum(nbytes for _, nbytes in system.written) == len(EXPECTED) // ALIGNMENT * ALIGNMENT - ALIGNMENT
    assert not [thread for thread in threading.enumerate() if thread.name == "statedict-write"]
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(system.direct[0])


@pytest.mark.parametrize("durable", ["rename", "none"])
def test_other_files_go_through_the_page_cache(path, durable):
    """Only a save that is durable waits for the disk."""
    system = Watched()
    files.write(path, parts(), durable=durable, system=system)
    assert (path.read_bytes(), system.direct) == (EXPECTED, [])


def refused(number):
    def fault(buffers):
        raise OSError(number, os.strerror(number))

    return fault


@pytest.mark.parametrize("fault", [refused(errno.EINVAL), lambda buffers: [buffers[0][:ALIGNMENT]]])
def test_what_the_file_system_does_not_take_goes_through_the_page_cache(path, fault):
    """A write that is refused for its alignment, or that was cut off, is completed by the ordinary call."""
    files.write(path, parts(), system=Watched(fault))
    assert path.read_bytes() == EXPECTED


def test_a_file_system_that_cannot_is_written_as_usual(path):
    """If the file cannot be opened for direct writes, it is written as usual."""

    class Unable(Watched):
        def open(self, path, flags, mode=0o666):
            if flags == _output.WRITE_DIRECT:
                raise OSError(errno.EINVAL, "invalid argument")
            return super().open(path, flags, mode)

    files.write(path, parts(), system=Unable())
    assert path.read_bytes() == EXPECTED


def test_an_error_of_a_thread_is_that_of_the_save(path):
    """The old file stays, and no thread, descriptor or temporary file is left."""
    system = Watched(refused(errno.EIO))
    with pytest.raises(OSError, match="Input/output") as caught:
        files.write(path, parts(), system=system)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == [path.name]
    assert not [thread for thread in threading.enumerate() if thread.name == "statedict-write"]
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(system.direct[0])


def test_an_error_while_the_content_is_made_ends_the_threads(path):
    """A part that cannot be read leaves the old file."""

    def views():
        yield memoryview(CONTENT)
        raise MemoryError("no memory")

    with pytest.raises(MemoryError):
        files.write(path, [Payload(len(CONTENT) + 1, views)], system=Watched())
    assert path.read_bytes() == OLD
    assert not [thread for thread in threading.enumerate() if thread.name == "statedict-write"]


def test_without_threads_the_save_writes_itself(path, monkeypatch):
    """A system that refuses more threads does not prevent a save, and an error is that of the save."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    system = Watched()
    files.write(path, parts(), system=system)
    assert path.read_bytes() == EXPECTED
    assert system.written
    with pytest.raises(OSError, match="Input/output"):
        files.write(path, parts(), system=Watched(refused(errno.EIO)))
    assert path.read_bytes() == EXPECTED


def test_threads_have_ended_before_the_file_is_closed(path, monkeypatch):
    """An interrupt while a save waits for its threads leaves none that still writes to the descriptor."""
    join, goes_on = threading.Thread.join, threading.Event()
    waited = []

    def interrupted(thread, timeout=None):
        waited.append(thread)
        if len(waited) == 1:
            raise KeyboardInterrupt
        goes_on.set()
        join(thread, timeout)

    class Slow(Watched):
        def write(self, fd, buffers, offset):
            if fd in self.direct:
                goes_on.wait()
            return super().write(fd, buffers, offset)

        def close(self, fd):
            if fd in self.direct:
                assert not [thread for thread in threading.enumerate() if thread.name == "statedict-write"]
            super().close(fd)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    monkeypatch.setattr(_direct, "BUFFERS", 64)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, parts(), system=Slow())
    assert path.read_bytes() == OLD
    assert len(waited) == 3


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 400_000), max_size=6),
    order=st.randoms(use_true_random=False),
    cut=st.integers(0, 5),
)
def test_runs_in_any_order_make_the_whole(cuts, order, cut):
    """Runs of any length and position, in any order, are all written, each byte where it belongs."""
    content = bytearray(400_000)
    data = os.urandom(len(content))
    lock = threading.Lock()

    def put(offset, buffers):
        with lock:
            for buffer in buffers:
                content[offset : offset + len(buffer)] = buffer
                offset += len(buffer)

    def direct(buffers, offset):
        done = [buffer[: len(buffer) - cut * ALIGNMENT] for buffer in buffers]
        put(offset, done)
        return sum(map(len, done))

    writer = DirectWriter(direct, put)
    bounds = sorted({0, len(data), *cuts})
    runs = [(start, stop) for start, stop in pairwise(bounds)]
    order.shuffle(runs)
    for start, stop in runs:
        middle = (start + stop) // 2
        writer.write(start, [memoryview(data)[start:middle], memoryview(data)[middle:stop]])
    writer.finish()
    assert content == data
