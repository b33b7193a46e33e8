"""A file is replaced as a whole or not at all: whatever the system does, at whatever call."""

import errno
import fcntl
import io
import os
import signal
import stat
import subprocess
import sys
import threading
from functools import partial
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.forked import child

from statedict import files
from statedict.errors import DiskFullError, SaveError
from statedict.files import Frame, Payload, System
from statedict.files._output import FOLIO, aligned
from statedict.files.system import DIRECTORY, MOST_BUFFERS, MUST_CLOSE

OLD = b"the old file"
NEW = os.urandom(3 << 20)


def parts(content=NEW):
    crcs = []
    payload = Payload(len(content), lambda: [memoryview(content)], crcs.append)
    return [Frame(4, lambda: crcs[-1].to_bytes(4, "little"), last=True), payload]


EXPECTED = files.crc32(NEW).to_bytes(4, "little") + NEW


class Recorder(System):
    """A System that counts calls, and at the n-th does `fault` instead of the call."""

    def __init__(self, at=None, fault=None):
        self.calls = []
        self.at = at
        self.fault = fault

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in OPERATIONS:
            return found

        def call(*arguments, **options):
            self.calls.append(name)
            if self.at == len(self.calls) and self.fault is not None:
                if name == "close":  # the file is closed even if `close` fails
                    found(*arguments, **options)
                return self.fault(found, *arguments, **options)
            return found(*arguments, **options)

        return call


OPERATIONS = {name for name in vars(System) if not name.startswith("_")}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(OLD)
    return path


def strays(path):
    return sorted(name for name in os.listdir(path.parent) if name != path.name)


def raising(number):
    def fault(found, *arguments, **options):
        raise OSError(number, os.strerror(number))

    return fault


def test_parts_are_written_in_place_whatever_their_order(path):
    """A part that is made of others is written last, and stands where it belongs."""
    files.write(path, parts())
    assert path.read_bytes() == EXPECTED
    assert strays(path) == []


@pytest.mark.parametrize("durable", ["full", "rename", "none", True, False])
def test_durability_is_which_syncs_are_done(path, durable):
    """`full` syncs the file before the rename and, where a system can, the directory after it, `rename` the file only,
    `none` nothing."""
    everything = ["sync", "replace"] if DIRECTORY is None else ["sync", "replace", "sync"]
    system = Recorder()
    files.write(path, parts(), durable=durable, system=system)
    syncs = [call for call in system.calls if call in ("sync", "replace")]
    assert syncs == {
        "full": everything,
        True: everything,
        "rename": ["sync", "replace"],
    }.get(durable, ["replace"])


@pytest.mark.parametrize(("durable", "begun"), [("full", 2), ("rename", 2), ("none", 0)])
def test_the_disk_begins_before_all_is_written(path, durable, begun):
    """A durable save of a large file has the disk begin while the rest is written; what was written, once and in order."""
    reached, starts = [], []

    class Watched(System):
        def write(self, fd, buffers, offset):
            done = super().write(fd, buffers, offset)
            reached.append(offset + done)
            return done

        write_uncached = write

        def begin_sync(self, fd, offset, nbytes):
            starts.append((offset, nbytes, reached[-1]))
            super().begin_sync(fd, offset, nbytes)

    content = bytes(35 << 20)
    files.write(path, [Payload(len(content), lambda: [memoryview(content)])], durable=durable, system=Watched())
    assert path.read_bytes() == content
    assert len(starts) == begun
    assert [start for start, _, _ in starts] == [sum(size for _, size, _ in starts[:n]) for n in range(len(starts))]
    assert all(offset + nbytes == end for offset, nbytes, end in starts)


@pytest.mark.parametrize(("durable", "uncached"), [("full", 35 << 20), ("rename", 0), ("none", 0)])
def test_a_large_durable_file_leaves_the_page_cache(path, durable, uncached):
    """Only a file that is durable with its name is written so; a write that is cut off is completed in the same way."""
    written = []

    class Short(System):
        def write_uncached(self, fd, buffers, offset):
            done = super().write_uncached(fd, [buffers[0][:200_000]], offset)
            written.append(done)
            return done

    content = os.urandom(1 << 20) * 35
    files.write(path, [Payload(len(content), lambda: [memoryview(content)])], durable=durable, system=Short())
    assert (path.read_bytes() == content, sum(written)) == (True, uncached)


@pytest.mark.only_on("linux", "macos")
def test_a_large_old_file_is_freed_beside_the_save(path):
    """The save is over before the system has freed the file that it replaced; a thread waits for that."""
    os.truncate(path, 16 << 20)
    opened, let_go = [], threading.Event()
    caller = threading.get_ident()

    class Watched(System):
        def open(self, found, flags, mode=0o666):
            fd = super().open(found, flags, mode)
            if found == str(path):
                opened.append(fd)
            return fd

        def close(self, fd):
            super().close(fd)
            if fd in opened and threading.get_ident() != caller:
                let_go.set()

    files.write(path, parts(), system=Watched())
    assert path.read_bytes() == EXPECTED
    assert len(opened) == 1
    assert let_go.wait(10)


def test_an_unknown_durability_is_refused_before_anything(path):
    """A misspelt durability is a ValueError that lists the choices, and nothing was touched."""
    with pytest.raises(ValueError, match="durable must be one of 'full', "):
        files.write(path, parts(), durable="fully")
    assert path.read_bytes() == OLD


def faults():
    for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP):
        yield errno.errorcode[number], raising(number)
    yield "KeyboardInterrupt", _interrupt
    yield "MemoryError", _no_memory


def _interrupt(found, *arguments, **options):
    raise KeyboardInterrupt


def _no_memory(found, *arguments, **options):
    raise MemoryError


@pytest.mark.parametrize(("fault"), [fault for _, fault in faults()], ids=[name for name, _ in faults()])
def test_a_fault_at_any_call_leaves_the_old_file_or_the_new(path, fault):
    """Every system call of a save is made to fail in turn: the file is the old or the new one, whole, and the error is one
    that was meant; nothing stays beside it."""
    at = 0
    while True:
        at += 1
        path.write_bytes(OLD)
        for stray in strays(path):
            (path.parent / stray).unlink()
        system = Recorder(at, fault)
        failed = None
        try:
            files.write(path, parts(), system=system)
        except (OSError, KeyboardInterrupt, MemoryError) as error:
            failed = error
        if len(system.calls) < at:
            break
        content = path.read_bytes()
        assert content in (OLD, EXPECTED)
        assert failed is not None or content == EXPECTED
        assert strays(path) == []
    assert at > 12
    assert failed is None


def test_short_writes_and_signals_are_gone_on_from(path):
    """The system may write less than it was given, byte by byte even; the file is whole all the same."""

    class Short(System):
        def write(self, fd, buffers, offset):
            return super().write(fd, [buffers[0][: max(1, len(buffers[0]) // 3)]], offset)

    files.write(path, parts(), system=Short())
    assert path.read_bytes() == EXPECTED


@given(
    offset=st.integers(0, 3 * FOLIO),
    sizes=st.lists(st.one_of(st.integers(0, 100), st.integers(0, 3 * FOLIO)), max_size=12),
    tiny=st.integers(0, 3000),
)
def test_writes_end_at_multiples_of_a_folio(offset, sizes, tiny):
    """Chunks are put together, and cut, into writes that follow each other, each within one folio of the file, each but the
    last to its end or of as many buffers as the system takes; they are the chunks' own memory, and none is empty."""
    whole = memoryview(bytearray(b"0123456789" * (sum(sizes) // 10 + tiny // 10 + 1)))
    ends = [*accumulate(sizes + [1] * tiny, initial=0)]
    chunks = [whole[start:end] for start, end in pairwise(ends)]
    found = list(aligned(offset, chunks))
    assert b"".join(b"".join(buffers) for _, buffers in found) == whole[: ends[-1]]
    lengths = [sum(map(len, buffers)) for _, buffers in found]
    assert [at for at, _ in found] == [offset + sum(lengths[:n]) for n in range(len(found))]
    assert all(at // FOLIO == (at + length - 1) // FOLIO for (at, _), length in zip(found, lengths))
    assert all(
        (at + length) % FOLIO == 0 or len(buffers) == MOST_BUFFERS for (at, buffers), length in zip(found[:-1], lengths)
    )
    assert all(buffer.nbytes and buffer.obj is whole.obj for _, buffers in found for buffer in buffers)


def test_a_system_that_writes_nothing_is_an_error(path):
    """A write that makes no progress ends in an error, not in a loop."""

    class Stuck(System):
        def write(self, fd, buffers, offset):
            return 0

    with pytest.raises(OSError, match="wrote 0 bytes"):
        files.write(path, parts(), system=Stuck())
    assert path.read_bytes() == OLD


def test_empty_parts_are_nothing(path):
    """A part of no bytes, and one that comes in an empty chunk, are written as nothing."""
    files.write(path, [Frame(0, bytes), Frame(3, lambda: b"abc"), Payload(0, lambda: [memoryview(b"")])])
    assert path.read_bytes() == b"abc"
    files.write(path, [])
    assert path.read_bytes() == b""


def test_a_failed_sync_is_final(path):
    """An error of fsync is not tried again: the kernel may have dropped what it could not write."""
    calls = []

    class Failing(System):
        def sync(self, fd):
            calls.append(fd)
            raise OSError(errno.EIO, "input/output error")

    with pytest.raises(OSError, match="input/output"):
        files.write(path, parts(), system=Failing())
    assert len(calls) == 1
    assert path.read_bytes() == OLD


def test_no_room_is_known_before_the_first_byte(path):
    """Where the disk has no room the error says how much is needed and free, and nothing was written."""
    written = []

    class Full(System):
        def allocate(self, fd, nbytes):
            raise OSError(errno.ENOSPC, "no space")

        def free(self, directory):
            return 1000

        def write(self, fd, buffers, offset):
            written.append(offset)
            return super().write(fd, buffers, offset)

    with pytest.raises(DiskFullError, match=r"3,145,732 bytes are needed, but only 1,000 are free") as caught:
        files.write(path, parts(), system=Full())
    assert (caught.value.needed, caught.value.free, written) == (len(EXPECTED), 1000, [])
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("free", [0, 10, len(EXPECTED)])
def test_where_space_cannot_be_reserved_it_is_counted(path, free):
    """A file system that cannot reserve space is asked how much it has, and refused if that is too little."""

    class Plain(System):
        def allocate(self, fd, nbytes):
            raise OSError(errno.EOPNOTSUPP, "not supported")

        def free(self, directory):
            return free

    if free < len(EXPECTED):
        with pytest.raises(DiskFullError):
            files.write(path, parts(), system=Plain())
        assert path.read_bytes() == OLD
    else:
        files.write(path, parts(), system=Plain())
        assert path.read_bytes() == EXPECTED


def test_without_locks_it_works_too(path):
    """A file system without locks is written to all the same."""

    class Lockless(System):
        def lock(self, fd, *, wait):
            raise OSError(errno.ENOLCK, "no locks")

    files.write(path, parts(), system=Lockless())
    assert path.read_bytes() == EXPECTED


@pytest.mark.only_on("linux", "macos")
def test_a_new_file_has_the_umasks_mode_and_an_old_one_keeps_its_own(tmp_path):
    """A new file's mode is 0666 less the umask; a replaced file's is what it was."""
    before = os.umask(0o027)
    try:
        files.write(tmp_path / "new", parts())
        (tmp_path / "old").write_bytes(OLD)
        (tmp_path / "old").chmod(0o604)
        files.write(tmp_path / "old", parts())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o604


def test_a_link_stays_a_link(tmp_path):
    """Saving through a symbolic link replaces what it points to, beside which the temporary file is."""
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "real.pt"
    target.write_bytes(OLD)
    (tmp_path / "link").symlink_to("there/real.pt")
    files.write(tmp_path / "link", parts())
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == EXPECTED
    (tmp_path / "dangling").symlink_to("there/fresh.pt")
    files.write(tmp_path / "dangling", parts())
    assert (tmp_path / "there" / "fresh.pt").read_bytes() == EXPECTED


def test_only_regular_files_are_replaced(tmp_path):
    """A directory, a FIFO or a device is not replaced by a file."""
    os.mkfifo(tmp_path / "fifo")
    for target, what in {
        tmp_path: "a directory, not a regular file; pass the path of a file in it",
        tmp_path / "fifo": "a FIFO, not a regular file; save to a new name",
        "/dev/null": "a character device, not a regular file; save to a new name",
    }.items():
        with pytest.raises(SaveError, match=f"this is {what}"):
            files.write(target, parts())


def test_long_names_can_be_saved(tmp_path):
    """A name as long as the system allows leaves room for the temporary file's, which is cut between two characters."""
    opened = []

    class Watched(System):
        def open(self, path, flags, mode=0o666):
            opened.append(path.encode())
            return super().open(path, flags, mode)

    path = tmp_path / ("a" + "ü" * 127)
    files.write(path, parts(), system=Watched())
    assert path.read_bytes() == EXPECTED
    assert opened


def test_a_read_only_file_is_replaced_or_kept(path):
    """Windows neither replaces nor deletes a read-only file: the temporary file does not become one."""
    path.chmod(0o444)
    if MUST_CLOSE:
        with pytest.raises(PermissionError, match="this file may not be replaced"):
            files.write(path, parts())
    else:
        files.write(path, parts())
    assert path.read_bytes() == (OLD if MUST_CLOSE else EXPECTED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert strays(path) == []


@pytest.mark.only_on("windows")
def test_a_path_that_is_too_long_is_said_to_be(path):
    """Windows says of a path that is too long that it does not exist, although its directory does."""

    class Short(System):
        def open(self, path, flags, mode=0o666):
            if path.endswith(".tmp"):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            return super().open(path, flags, mode)

    with pytest.raises(OSError, match=r"path of \d+ characters is too long for this system.*model\.pt"):
        files.write(path, parts(), system=Short())


KILLED = """
import os, signal, sys
from statedict import files
from statedict.files import Payload, System

class Deadly(System):
    def write(self, fd, buffers, offset):
        if offset > 1 << 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(fd, buffers, offset)

content = bytes(3 << 20)
files.write(sys.argv[1], [Payload(len(content), lambda: [memoryview(content)])], system=Deadly())
"""


@pytest.mark.only_on("linux", "macos")
def test_a_killed_save_loses_nothing_and_its_stray_goes_with_the_next(path):
    """A process killed while it saves leaves the old file whole; the next save deletes what it left."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    assert len(strays(path)) == 1
    assert strays(path)[0].startswith(".model.pt.statedict-")
    files.write(path, parts())
    assert path.read_bytes() == EXPECTED
    assert strays(path) == []


def test_a_save_that_is_under_way_is_no_stray(path):
    """A temporary file that somebody holds locked is left alone, and so are files with other names."""
    busy = path.parent / ".model.pt.statedict-1-0123abcd.tmp"
    other = path.parent / ".model.pt.statedict-backup.tmp"
    other.touch()
    with busy.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        files.write(path, parts())
        assert strays(path) == sorted([busy.name, other.name])
    files.write(path, parts())
    assert strays(path) == [other.name]


@pytest.mark.only_on("linux", "macos")
def test_a_save_taken_for_a_stray_begins_again(path):
    """If another save deletes the temporary file before it is locked, a new one is made."""
    removed = []

    class Raced(System):
        def lock(self, fd, *, wait):
            if not removed:
                removed.extend(strays(path))
                (path.parent / removed[0]).unlink()
            super().lock(fd, wait=wait)

    files.write(path, parts(), system=Raced())
    assert path.read_bytes() == EXPECTED
    assert strays(path) == []


def test_a_part_of_another_length_than_planned_is_refused(path):
    """A part that is not as long as it was said to be ends the save, and the old file stays."""
    for wrong in (Frame(5, lambda: b"1234"), Payload(5, lambda: [memoryview(b"1234")])):
        with pytest.raises(ValueError, match="4 bytes, but 5 were announced"):
            files.write(path, [wrong])
    assert path.read_bytes() == OLD
    assert strays(path) == []


def test_a_file_object_gets_the_same_bytes():
    """A stream is written in order, also where a part that is made last stands first; short writes are gone on from."""

    class Short(io.RawIOBase):
        def __init__(self):
            self.content = b""

        def writable(self):
            return True

        def write(self, chunk):
            self.content += bytes(chunk[:100_000])
            return min(len(chunk), 100_000)

    class Silent:
        def __init__(self):
            self.content = b""

        def write(self, chunk):
            self.content += bytes(chunk)

    buffer, short, silent = io.BytesIO(), Short(), Silent()
    for stream in (buffer, short, silent):
        files.write(stream, parts())
    assert buffer.getvalue() == short.content == silent.content == EXPECTED


def test_a_target_that_is_neither_is_refused():
    """A target that is neither a path nor a file object is a TypeError."""
    with pytest.raises(TypeError, match="a path or a binary file object is expected, not int"):
        files.write(3, parts())


@pytest.mark.only_on("linux", "macos")
def test_death_at_any_call_loses_nothing(path):
    """A process that dies before any system call of a save, and does no cleaning up, leaves the old file or the new one; the
    next save leaves nothing else."""
    after, deaths = [], 0
    for at in range(1, 40):
        path.write_bytes(OLD)
        dying = Recorder(at, lambda *_, **__: os._exit(9))
        process = child(partial(files.write, path, parts(), system=dying))
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        content = path.read_bytes()
        assert content in (OLD, EXPECTED)
        after.append(content == OLD)
        if code == 0:
            break
        assert code == 9
        deaths += 1
        files.write(path, parts())
        assert strays(path) == []
    assert deaths > 12
    assert after == sorted(after, reverse=True)


@pytest.mark.only_on("linux")
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("old", [None, OLD])
def test_a_directory_that_may_not_be_listed(tmp_path, old):
    """A directory that may be written to and not read takes a durable save: what cannot be opened to be flushed is no
    reason to raise after the old file is gone."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    for above in (folder, *folder.parents[:-2]):
        above.chmod(0o777)
    if old:
        (folder / "m.pt").write_bytes(old)
        (folder / "m.pt").chmod(0o666)
    folder.chmod(0o333)

    def save():
        os.setgid(12345)
        os.setuid(12345)
        files.write(folder / "m.pt", parts())

    assert os.waitpid(child(save), 0)[1] == 0
    assert (folder / "m.pt").read_bytes() == EXPECTED
    assert os.listdir(folder) == ["m.pt"]


@pytest.mark.only_on("linux", "macos")
def test_a_directory_that_cannot_be_opened_is_found_out_first(path):
    """An error about the directory comes before the rename, so that the old file is still there."""

    class Full(System):
        def open(self, found, flags, mode=0o666):
            if flags & os.O_DIRECTORY:
                raise OSError(errno.EMFILE, "Too many open files", found)
            return super().open(found, flags, mode)

    with pytest.raises(OSError, match="Too many open files"):
        files.write(path, parts(), system=Full())
    assert path.read_bytes() == OLD


class Owned(System):
    """A file of another user and group; `refused` says what this user may not give: `"owner"`, or `"group"` too."""

    def __init__(self, mode, refused):
        self.mode_of_old, self.refused, self.asked, self.modes = mode, refused, [], []

    def stat(self, found):
        status = list(super().stat(found))
        status[stat.ST_MODE] = stat.S_IFREG | self.mode_of_old
        status[stat.ST_UID] += 1
        status[stat.ST_GID] += 1
        return os.stat_result(status)

    def own(self, fd, user, group):
        self.asked.append(user)
        if user >= 0 or "group" in self.refused:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    def mode(self, fd, mode):
        self.modes.append(oct(mode))


@pytest.mark.parametrize(
    ("mode", "refused", "kept"),
    [
        (0o660, ["owner"], "0o660"),
        (0o664, ["owner"], "0o664"),
        (0o644, ["owner", "group"], "0o644"),
        (0o664, ["owner", "group"], "0o644"),
        (0o4755, ["owner"], "0o755"),
        (0o660, ["owner", "group"], None),
        (0o600, ["owner"], None),
        (0o640, ["owner", "group"], None),
    ],
)
def test_others_are_not_locked_out(path, mode, refused, kept):
    """Where the owner cannot be given to the new file, the group is; a save that would take away others' access is refused,
    and another group gets no more than everybody has."""
    system = Owned(mode, refused)
    if kept is None:
        with pytest.raises(PermissionError, match=r"would lock out others who may read it now.*model\.pt"):
            files.write(path, parts(), system=system)
        assert path.read_bytes() == OLD
        assert strays(path) == []
    else:
        files.write(path, parts(), system=system)
        assert system.modes == [kept]
        assert system.asked[-1] == -1


@pytest.mark.parametrize("operation", ["open", "lock", "fstat", "mode", "allocate", "write", "sync", "replace"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EFBIG, errno.EIO, errno.EDQUOT, errno.ENOSPC])
def test_errors_name_the_file(path, operation, number):
    """Whatever the system says of a descriptor or of the temporary file, the error is about the file that is saved."""

    with pytest.raises(OSError) as caught:
        files.write(path, parts(), system=BrokenOnce(operation, number))
    assert caught.value.filename in (str(path), str(path.parent))
    assert ".tmp" not in str(caught.value).replace(str(path.parent), "")
    assert path.read_bytes() == OLD


class BrokenOnce(System):
    """A System of which one operation fails."""

    def __init__(self, operation, number):
        self.operation, self.number = operation, number

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in OPERATIONS or name != self.operation:
            return found

        def fail(*arguments, **options):
            path = arguments[0] if isinstance(arguments[0], str) else None
            if name == "open" and path and not path.endswith(".tmp"):
                return found(*arguments, **options)
            raise OSError(self.number, os.strerror(self.number), path)

        return fail


@pytest.mark.only_on("linux", "macos")
def test_a_limit_on_file_sizes_names_the_file(tmp_path):
    """RLIMIT_FSIZE ends a save with an error that names the file; the old one stays, and nothing beside it."""
    code = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
import statedict
try:
    statedict.save({"a": list(range(10000))}, sys.argv[1])
except OSError as error:
    print(error.filename == sys.argv[1], error.strerror)
"""
    (tmp_path / "m.pt").write_bytes(OLD)
    # -B: Python 3.11 would cut the bytecode files of what is imported at this size, and leave them.
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path / "m.pt")], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("True File too large\n", "")
    assert (tmp_path / "m.pt").read_bytes() == OLD
    assert os.listdir(tmp_path) == ["m.pt"]
