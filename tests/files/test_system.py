"""The seam for the operating system does the same on every system, with what that has."""

import errno
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import pytest
from tests import forked, systems

from statedict import files
from statedict.errors import SaveError
from statedict.files import Frame, _atomic, _open, system


@pytest.fixture(params=["linux", "macos", "windows"])
def name(request):
    return request.param


@pytest.fixture
def opened(tmp_path, name):
    """The seam on a system, and a descriptor of a file of 4,000 bytes."""
    seam = systems.load(name)
    (tmp_path / "file").write_bytes(bytes(range(250)) * 16)
    fd = seam.SYSTEM.open(str(tmp_path / "file"), seam.READ)
    yield seam, fd
    os.close(fd)


def test_threads_read_at_their_own_offsets(opened):
    """Threads that share a descriptor each read from the offset that they give; the end of the file is a short read."""
    seam, fd = opened
    wrong = []

    def read(start):
        for offset in range(start, 3000, 11):
            first, second = bytearray(7), bytearray(100)
            seam.preadv(fd, [memoryview(first), memoryview(second)], offset)
            expected = bytes(n % 250 for n in range(offset, offset + 107))
            if first + second != expected or seam.pread(fd, 107, offset) != expected:
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seam.pread(fd, 100, 3990) == bytes(range(240, 250))
    assert seam.preadv(fd, [memoryview(bytearray(7)), memoryview(bytearray(7))], 3990) == 10


@pytest.mark.parametrize("name", ["linux", "windows"], indirect=True)
def test_buffers_are_written_one_after_the_other(tmp_path, name):
    """Buffers are written at the offset, and nothing else changes."""
    seam = systems.load(name)
    fd = seam.SYSTEM.open(str(tmp_path / "new"), seam.CREATE)
    assert seam.SYSTEM.write(fd, [memoryview(b"world")], 6) == 5
    assert seam.SYSTEM.write(fd, [memoryview(b"hel"), memoryview(b"lo")], 0) == 5
    assert seam.SYSTEM.read(fd) == b"hello\0world"
    with pytest.raises(FileExistsError):
        seam.SYSTEM.open(str(tmp_path / "new"), seam.CREATE)
    os.close(fd)


@pytest.mark.only_on("linux")
def test_a_file_system_that_keeps_what_is_written_is_written_as_usual(tmp_path):
    """Bytes that cannot leave the page cache are written without that request; other errors are raised at once."""
    errors = [
        OSError(errno.EOPNOTSUPP, ""),
        None,
        OSError(errno.EINVAL, ""),
        None,
        OSError(errno.ENOSPC, "full"),
        TimeoutError("late"),
    ]

    def pwritev(fd, buffers, offset, *flags):
        if error := errors.pop(0):
            raise error
        return os.pwritev(fd, buffers, offset, *flags)

    seam = systems.load("linux", pwritev=pwritev)
    fd = seam.SYSTEM.open(str(tmp_path / "new"), seam.CREATE)
    assert seam.SYSTEM.write_uncached(fd, [memoryview(b"hel"), memoryview(b"lo")], 0) == 5
    assert seam.SYSTEM.write_uncached(fd, [memoryview(b"!")], 5) == 1
    assert seam.SYSTEM.read(fd) == b"hello!"
    with pytest.raises(OSError, match="full"):
        seam.SYSTEM.write_uncached(fd, [memoryview(b"more")], 6)
    with pytest.raises(TimeoutError, match="late"):  # what a handler of SIGALRM may raise
        seam.SYSTEM.write_uncached(fd, [memoryview(b"more")], 6)
    os.close(fd)


def test_a_lock_ends_with_its_descriptor(tmp_path, name):
    """A locked file cannot be locked again, not even by the same process, until the descriptor is closed."""
    seam = systems.load(name)
    first, second = (seam.SYSTEM.open(str(tmp_path / "lock"), seam.LOCKED) for _ in range(2))
    seam.SYSTEM.lock(first, wait=False)
    with pytest.raises(BlockingIOError):
        seam.SYSTEM.lock(second, wait=False)
    os.close(first)
    seam.SYSTEM.lock(second, wait=True)
    os.close(second)


def test_windows_waits_for_a_lock(tmp_path):
    """Where the system has no call that waits for a lock, it is tried until it can be had."""
    seam = systems.load("windows")
    first, second = (seam.SYSTEM.open(str(tmp_path / "lock"), seam.LOCKED) for _ in range(2))
    seam.SYSTEM.lock(first, wait=True)
    threading.Timer(0.02, os.close, [first]).start()
    seam.SYSTEM.lock(second, wait=True)
    os.close(second)


def test_windows_says_that_it_cannot_lock():
    """A failure for another reason than that the lock is taken is an error, and is not waited for."""
    seam = systems.load("windows")
    with pytest.raises(OSError, match="No locks available"):
        seam.SYSTEM.lock(1 << 20, wait=True)


@pytest.mark.parametrize(("refusals", "waits"), [(2, {"windows": 2}), (99, {"windows": 6})])
def test_windows_waits_for_programs_that_look_at_a_new_file(name, refusals, waits):
    """There, a file that another program has open is renamed, deleted or read when that closes it, within a second."""
    expected, left, pauses = waits.get(name, 0), [0], []

    def refuse(*paths):
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(errno.EACCES, "sharing violation", paths[0])

    seam = systems.load(name, replace=refuse, rename=refuse, unlink=refuse, open=refuse)
    seam._calls.time = systems.Facade(time, sleep=pauses.append)
    acts = (seam.SYSTEM.replace, "a", "b"), (seam.SYSTEM.unlink, "a"), (seam.rename, "a", "b"), (seam.open_to_read, "a")
    for act, *paths in acts:
        left[0] = refusals
        with nullcontext() if expected == refusals else pytest.raises(PermissionError, match="sharing violation"):
            act(*paths)
    assert len(pauses) == 4 * expected
    assert sum(pauses) < 4


def test_macos_flushes_the_cache_of_the_drive(tmp_path):
    """On macOS, F_FULLFSYNC flushes files and directories; fsync does where the file system does not support it."""
    seam = systems.load("macos")
    (tmp_path / "file").touch()
    systems.FULL_FLUSHES.clear()
    seam.flush_file(tmp_path / "file")
    seam.flush_directory(tmp_path)
    assert len(systems.FULL_FLUSHES) == 2
    flushed = []
    seam._calls.os = systems.Facade(os, fsync=flushed.append)
    seam._calls.fcntl.fcntl = lambda fd, command: _raise(errno.ENOTSUP)
    seam.flush_file(tmp_path / "file")
    assert len(flushed) == 1
    seam._calls.fcntl.fcntl = lambda fd, command: _raise(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        seam.flush_file(tmp_path / "file")
    assert len(flushed) == 1


def test_a_directory_that_cannot_be_flushed_is_left_at_that(tmp_path, name):
    """Some network file systems cannot flush directories; a file that cannot be flushed, and other errors, are raised."""
    numbers = [errno.EINVAL]
    seam = systems.load(name, fsync=lambda fd: _raise(numbers[-1]))
    if name == "macos":
        seam._calls.fcntl.fcntl = lambda fd, command: _raise(errno.ENOTSUP)
    (tmp_path / "file").touch()
    seam.flush_directory(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        seam.flush_file(tmp_path / "file")
    numbers.append(errno.EIO)
    if name != "windows":
        with pytest.raises(OSError, match="Input/output error"):
            seam.flush_directory(tmp_path)


def test_macos_has_two_numbers_for_what_is_not_supported(monkeypatch):
    """ENOTSUP, which network disks give there, counts as well as EOPNOTSUPP. Linux has one number for both."""
    monkeypatch.setitem(sys.modules, "errno", systems.Facade(errno, ENOTSUP=45, EOPNOTSUPP=102))
    assert {45, 102} <= systems.load("macos").UNSUPPORTED


def test_macos_is_not_asked_for_2_gb_at_once():
    """There, a read of 2 GiB is an error, and not a short read as on Linux."""
    asked = []
    systems.load("macos", pread=lambda fd, nbytes, offset: asked.append(nbytes) or b"").pread(0, 1 << 40, 0)
    assert asked == [(1 << 31) - 1]


def _raise(number):
    raise OSError(number, os.strerror(number))


def test_windows_flushes_files_and_not_directories(tmp_path):
    """A file is opened for writing to be flushed, as Windows wants it; flushing a directory does nothing."""
    seam = systems.load("windows")
    (tmp_path / "file").touch()
    seam.flush_file(tmp_path / "file")
    seam.flush_directory(tmp_path)
    assert seam.DIRECTORY is None


def test_only_linux_swaps_directories(tmp_path, name):
    """Two directories are swapped, or neither is touched and the answer is no."""
    seam = systems.load(name)
    for each in ("a", "b"):
        (tmp_path / each).mkdir()
        (tmp_path / each / each).touch()
    swapped = seam.exchange(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path / "a") == (["b"] if swapped else ["a"])
    assert name == "linux" or not swapped


@pytest.mark.parametrize(
    ("name", "functions", "expected"),
    [
        ("linux", {"process_cpu_count": lambda: 3}, 3),
        ("linux", {"process_cpu_count": lambda: None}, 1),
        ("macos", {"cpu_count": lambda: 5}, 5),
        ("macos", {"cpu_count": lambda: None}, 1),
        ("windows", {"cpu_count": lambda: 1}, 1),
    ],
)
def test_processors_are_counted_by_what_there_is(name, functions, expected):
    """The number of processors is that of this process if the system tells it, and 1 if nothing is known."""
    assert systems.load(name, **functions).processors() == expected


def test_limits_that_a_system_does_not_have(name):
    """Where there is no limit on open files, none is reported; a signal that does not exist interrupts nothing."""
    seam = systems.load(name)
    assert (seam.open_files_limit() is None) == (name == "windows")
    seam.after_fork(lambda: None)
    with seam.interrupted_after(100, KeyboardInterrupt):
        pass
    assert (15 if name == "windows" else -9) == seam.DIED


@pytest.mark.parametrize("file", ["aux.pt", "a:b.pt"])
def test_windows_has_other_things_than_files(tmp_path, name, file, monkeypatch):
    """A path that the system takes for a device or a stream of another file is not saved to, and the error says so."""
    device = SimpleNamespace(
        abspath=lambda path: "\\\\.\\aux" if path.endswith("aux.pt") else path, basename=os.path.basename
    )
    monkeypatch.setattr(_atomic, "names_file", systems.load(name, path=device).names_file)
    files.write(tmp_path / "auxiliary.pt", [])
    refused = pytest.raises(SaveError, match=rf"{file}: a file of this system cannot have this name")
    with refused if name == "windows" else nullcontext():
        files.write(tmp_path / file, [])


def test_urls_of_local_files(name, monkeypatch):
    """A `file://` URL is a path of the system: after the slash, Windows has a drive. A drive is not the scheme of a URL."""
    monkeypatch.setattr(_open, "path_in_url", systems.load(name).path_in_url)
    drive = "C:/a b" if name == "windows" else "/C:/a b"
    urls = ["file:///C:/a%20b", "file:///C%3A/a b", "file:///tmp/a", "C://a"]
    assert [files.local_path(url) for url in urls] == [drive, drive, "/tmp/a", "C://a"]


def test_a_file_read_lazily_is_saved_over_or_kept(tmp_path):
    """A save to the file that its state is read from replaces it; where open files cannot be replaced, it says so, and the
    file is as it was. It works there too when the file was closed.
    """
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")
    lazy = files.open(path)
    part = Frame(3, lambda: lazy.read(0, 3)[::-1])
    if system.MUST_CLOSE:
        with pytest.raises(PermissionError, match=r"it is open.*close that first, or save to a new name.*m\.bin"):
            files.write(path, [part])
        assert path.read_bytes() == b"old"
    else:
        files.write(path, [part])
        assert path.read_bytes() == b"dlo"
    lazy.close()
    files.write(path, [Frame(3, lambda: b"new")])
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["m.bin"]


@pytest.fixture
def leased(tmp_path, monkeypatch):
    """The seam on Linux, an empty file on a disk of this machine, and a descriptor that reads it."""
    # Tests may run beside a thread of their runner.
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    seam = systems.load("linux")
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", seam.READ)
    with ExitStack() as until:
        if seam.lease(fd, until) is None:
            pytest.skip("this file system does not grant leases")
    yield seam, tmp_path / "file", fd
    os.close(fd)


def test_a_program_that_writes_waits_for_the_end_of_all_leases(leased):
    """Two leases of one file: a writer waits for both of them, both can tell, and one does not end with the other."""
    seam, path, fd = leased
    writer = threading.Thread(target=path.write_bytes, args=(b"new",))
    with ExitStack() as first:
        with ExitStack() as second:
            held = [seam.lease(fd, first), seam.lease(fd, second)]
            assert [is_held() for is_held in held] == [True, True]
            writer.start()
            while held[0]():
                pass
            assert not held[1]()
        assert writer.is_alive()
        assert path.read_bytes() == b""
    writer.join()
    assert path.read_bytes() == b"new"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_does_not_keep_a_lease(leased):
    """A process that was forked during the lease has its descriptor; the file can be written when the parent is done."""
    seam, path, fd = leased
    with ExitStack() as until:
        seam.lease(fd, until)
        resume, stop = os.pipe()
        child = os.fork()
        if not child:
            os.close(stop)
            os.read(resume, 1)
            os._exit(0)
    # It would wait otherwise.
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    os.close(stop)
    os.close(resume)
    os.waitpid(child, 0)


def test_the_programs_handler_of_the_signal_is_not_called(leased):
    """Nobody is told that a writer waits: the lease is asked, when it matters."""
    seam, path, fd = leased
    called = []
    before = signal.signal(signal.SIGURG, lambda *_: called.append(1))
    try:
        with ExitStack() as until:
            is_held = seam.lease(fd, until)
            with pytest.raises(BlockingIOError):
                os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            assert not is_held()
    finally:
        signal.signal(signal.SIGURG, before)
    assert called == []


def test_files_that_others_may_change_are_not_leased(leased, monkeypatch):
    """A file open for writing, a file system to which other machines may write, systems without leases, other threads."""
    seam, path, fd = leased
    with ExitStack() as until:
        with path.open("wb"):
            assert seam.lease(fd, until) is None
        assert seam.lease(fd, until) is not None
        monkeypatch.setattr(threading, "active_count", lambda: 2)
        assert seam.lease(fd, until) is None
        monkeypatch.setattr(threading, "active_count", lambda: 1)
        assert systems.load("macos").lease(fd, until) is None
        assert systems.load("windows").lease(fd, until) is None
        monkeypatch.setattr(seam._lease, "LOCAL", set())
        assert seam.lease(fd, until) is None


def test_no_descriptor_stays_open(leased):
    """A lease, and one that is refused, leave no descriptor behind."""
    seam, path, fd = leased
    before = os.listdir("/proc/self/fd")
    with ExitStack() as until:
        assert seam.lease(fd, until)
    with path.open("wb"), ExitStack() as until:
        assert not seam.lease(fd, until)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.only_on("macos", "windows")
def test_forked_programs_run_on_the_system_of_the_tests():
    """A program that a test starts with `tests.forked` lacks what the library lacks here (`pytest --system=windows`)."""
    script = "import os; from statedict.files import system; print([hasattr(system._process.os, n) for n in dir(os)])"
    assert forked.run("-c", script).stdout == f"{[hasattr(system._process.os, name) for name in dir(os)]}\n"
