"""A model that a file is read into: whole as it was, or whole as the file has it, however large it is."""

import errno
import os
import sys
import threading
from contextlib import ExitStack

import pytest
import torch
from benchmarks._measure import extra_memory

import statedict
from statedict.errors import ChecksumError, FileChangedError
from statedict.files import _open
from statedict.torch.modules import _backup as _keeping
from statedict.torch.modules import _read_into as _arrivals

# Tensors, and elements of each: staged ones in several stages, large ones of 12 MB, a few of both.
SIZES = {"large": (3, 3_000_000), "staged": (900, 4_000), "both": (40, 70_000)}


class Model(torch.nn.Module):
    def __init__(self, count, elements, value, dtype=torch.float32):
        super().__init__()
        for number in range(count):
            size = elements if number % 2 else max(elements // 30, 1)
            self.register_parameter(
                f"p{number}", torch.nn.Parameter(torch.full((size if count == 40 else elements,), value, dtype=dtype))
            )


@pytest.fixture(params=list(SIZES))
def size(request):
    return SIZES[request.param]


@pytest.fixture(params=["torch", "safetensors"])
def path(request, tmp_path, size):
    statedict.save(Model(*size, 1.0), tmp_path / "m", format=request.param)
    return tmp_path / "m"


@pytest.fixture(params=["kept", "backed up"])
def way(request, monkeypatch, tmp_path):
    """The two ways to load all or nothing: the file is kept from being changed and read twice; or tensors are backed up."""
    monkeypatch.setattr(_arrivals, "BUFFER", 0)
    # Tests may run beside a thread of their runner.
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    if request.param == "backed up":
        monkeypatch.setattr(_open.LocalFile, "lease", lambda self, until: None)
    elif not can_be_kept(tmp_path):
        pytest.skip("this system does not grant leases here")
    return request.param


def can_be_kept(folder):
    (folder / "probe").touch()
    with ExitStack() as until:
        return _open.LocalFile(folder / "probe").lease(until) is not None


def elements(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def unchanged(model, before):
    return all(torch.equal(before[name], value) for name, value in model.named_parameters())


def before_reads(monkeypatch, act):
    """Call `act(nbytes)` before each read of a file."""
    read, read_into = _open.pread, _open.preadv

    def one(descriptor, nbytes, offset):
        act(nbytes)
        return read(descriptor, nbytes, offset)

    def many(descriptor, buffers, offset):
        act(sum(map(len, buffers)))
        return read_into(descriptor, buffers, offset)

    monkeypatch.setattr(_open, "pread", one)
    monkeypatch.setattr(_open, "preadv", many)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_read_may_fail(path, size, dtype, way, monkeypatch):
    """Whichever read after opening fails, the first or the last, into the same dtype or another: nothing has changed.

    If the file is kept as it is and its page cache is lost before it is read again, the error names what has changed.
    """
    model, calls, overwrite = Model(*size, 0.5, dtype), [], _arrivals.Arrivals._overwrite
    before, verified = elements(model), []

    def counted(self, steps):
        verified.append(len(calls))
        overwrite(self, steps)

    with statedict.open(path) as checkpoint, monkeypatch.context() as patch:
        patch.setattr(_arrivals.Arrivals, "_overwrite", counted)
        before_reads(patch, calls.append)
        statedict.load_state_dict(Model(*size, 0.0, dtype), checkpoint)
    again = verified[0] if way == "kept" else len(calls)
    for failing in sorted({0, 1, again - 1, len(calls) - 1}):
        left = [failing]

        def fail(nbytes, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with statedict.open(path) as checkpoint, monkeypatch.context() as patch:
            before_reads(patch, fail)
            with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
                statedict.load_state_dict(model, checkpoint)
        assert unchanged(model, before) is (failing < again)
        assert bool(getattr(caught.value, "__notes__", ())) is (failing >= again)


@pytest.mark.parametrize("way", ["kept"], indirect=True)
def test_an_error_that_passes_is_no_error(path, size, way, monkeypatch):
    """If reading the verified bytes into the tensors fails once, they are read again, and the load has succeeded."""
    model, wanted, overwrite, left = Model(*size, 0.5), Model(*size, 0.0), _arrivals.Arrivals._overwrite, []

    def begins(self, steps):
        left.append(1)
        overwrite(self, steps)

    def fail(nbytes):
        if left == [1]:
            left[0] = 0
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    statedict.load_state_dict(wanted, path)
    monkeypatch.setattr(_arrivals.Arrivals, "_overwrite", begins)
    before_reads(monkeypatch, fail)
    assert statedict.load_state_dict(model, path).ok
    assert left == [0, 1]
    assert unchanged(model, elements(wanted))


@pytest.mark.parametrize("way", ["backed up"], indirect=True)
@pytest.mark.parametrize("how", ["rewritten", "cut"])
def test_the_file_may_change_while_it_is_read(path, size, how, way, monkeypatch):
    """Another process rewrites or truncates the file when some of it has been read: nothing has changed."""
    model = Model(*size, 0.5)
    before, real = elements(model), _open.preadv
    left = [1]

    def changes(descriptor, buffers, offset):
        left[0] -= 1
        if not left[0]:
            with open(path, "r+b") as file:
                file.truncate(path.stat().st_size // 2) if how == "cut" else file.write(bytes(path.stat().st_size))
            os.utime(path, ns=(1, 1))
        return real(descriptor, buffers, offset)

    with statedict.open(path) as checkpoint:
        monkeypatch.setattr(_open, "preadv", changes)
        with pytest.raises((FileChangedError, ChecksumError)):
            statedict.load_state_dict(model, checkpoint)
    assert left[0] <= 0
    assert unchanged(model, before)


@pytest.mark.parametrize("way", ["kept"], indirect=True)
@pytest.mark.parametrize("size", [SIZES["large"]])
@pytest.mark.parametrize("path", ["torch"], indirect=True)
@pytest.mark.parametrize("at", ["verified", "read"])
def test_a_program_that_opens_the_file_for_writing_waits(path, size, way, at, monkeypatch):
    """It gets the file when the load is complete. If it came before the first tensor was written, they are backed up."""
    lease, overwrite, keep = _open.LocalFile.lease, _arrivals.Arrivals._overwrite, _keeping.Backup.keep
    held, ways = [], []

    def write():
        with open(path, "r+b") as file:
            file.truncate(0)

    writer = threading.Thread(target=write)

    def begin():
        writer.start()
        while held[0]():
            pass

    def leased(self, until):
        held.append(lease(self, until))
        if at == "verified":
            begin()
        return held[0]

    def overwrites(self, steps):
        ways.append("read")
        begin()
        overwrite(self, steps)

    def keeps(self, arrays):
        ways.append("backed up")
        keep(self, arrays)

    monkeypatch.setattr(_open.LocalFile, "lease", leased)
    monkeypatch.setattr(_arrivals.Arrivals, "_overwrite", overwrites)
    monkeypatch.setattr(_arrivals.Backup, "keep", keeps)
    model = Model(*size, 0.5)
    with statedict.open(path) as checkpoint:
        statedict.load_state_dict(model, checkpoint)
    assert all((value == 1).all() for value in model.parameters())
    assert {*ways} == {"backed up" if at == "verified" else "read"}
    writer.join()
    assert not path.stat().st_size


def test_damage_is_found(path, size, way):
    """One bit of the last tensor: nothing has changed."""
    raw = bytearray(path.read_bytes())
    raw[raw.rfind(b"\x00\x00\x80\x3f" * 8) + 2] ^= 64
    path.write_bytes(raw)
    model = Model(*size, 0.5)
    before = elements(model)
    with pytest.raises(ChecksumError):
        statedict.load_state_dict(model, path)
    assert unchanged(model, before)


@pytest.mark.parametrize("size", [SIZES["large"]])
@pytest.mark.parametrize("path", ["torch"], indirect=True)
def test_how_often_a_file_is_read(path, size, way, monkeypatch):
    """A load with a backup reads each byte once: checksums are of the bytes that arrive. Otherwise a load reads it twice."""
    nbytes = []
    before_reads(monkeypatch, nbytes.append)
    statedict.load_state_dict(Model(*size, 0.0), path)
    assert round(sum(nbytes) / path.stat().st_size, 2) == (2 if way == "kept" else 1)


@pytest.mark.parametrize("way", ["kept"], indirect=True)
@pytest.mark.parametrize("size", [SIZES["large"], SIZES["staged"]])
@pytest.mark.parametrize("path", ["torch"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_load_takes_no_memory_beyond_the_tensors(path, size, dtype, way):
    """A verified load into a model needs at most 16 MB, however large the model is, also if it casts."""
    model = Model(*size, 0.5, dtype)
    statedict.load_state_dict(model, path)
    assert extra_memory(lambda: statedict.load_state_dict(model, path)) < 16_000_000


@pytest.mark.parametrize("way", ["backed up"], indirect=True)
@pytest.mark.parametrize("size", [SIZES["large"]])
@pytest.mark.parametrize("path", ["torch"], indirect=True)
def test_without_room_changed_tensors_are_named(path, size, way, monkeypatch):
    """Where a backup does not fit, checksums are verified first; if reading fails, the error says what has changed."""
    monkeypatch.setattr(_arrivals, "have_room", lambda nbytes: False)
    monkeypatch.setattr(_arrivals, "GROUP", 1)
    model = Model(*size, 0.5)
    with statedict.open(path) as checkpoint:
        source = checkpoint.state_dict().leaf("p0").storage.source
        read, calls = source.read_into, []

        def fails_at_the_second(reads, *, verify):
            calls.append(verify)
            read(reads, verify=verify)
            if len(calls) == 2:
                raise OSError(errno.EIO, "the disk is gone")

        source.read_into = fails_at_the_second
        with pytest.raises(OSError, match="the disk is gone") as caught:
            statedict.load_state_dict(model, checkpoint)
    assert calls == [False, False]
    assert [set(value.tolist()) for value in model.parameters()] == [{1.0}, {1.0}, {0.5}]
    assert "2 of its tensors have changed (p0, p1)" in caught.value.__notes__[0]


def test_what_is_kept_is_put_back_bit_for_bit():
    """Tensors of any size and dtype, views of one storage, empty ones, and one whose storage was resized meanwhile."""
    whole = torch.randn(3_000_000)
    tensors = [whole[5:10], whole[::2], torch.zeros(0), torch.tensor(float("nan")), torch.arange(7)]
    before = [tensor.clone() for tensor in tensors]
    put_back = _keeping.keep(tensors)
    for tensor in tensors:
        tensor.zero_()
    tensors[4].untyped_storage().resize_(0)
    put_back()
    for tensor, old in zip(tensors, before):
        assert torch.equal(tensor.nan_to_num(3), old.nan_to_num(3))


def test_a_backup_grows_by_groups():
    """A group is added when earlier ones are overwritten; a storage of which two groups have a part is copied once."""
    whole, other = torch.arange(10.0), torch.ones(3)
    backup = _keeping.Backup()
    for group in ([whole[:5]], [whole[5:], other]):
        backup.keep(group)
        for tensor in group:
            tensor.zero_()
    whole.zero_()
    backup.restore()
    assert torch.equal(whole, torch.arange(10.0))
    assert torch.equal(other, torch.ones(3))


def interrupted(model, path, at):
    """Load, with KeyboardInterrupt at the `at`-th line of the functions that read; return whether there was such a line."""
    left, tracing = [at], sys.gettrace()

    def lines(frame, event, argument):
        left[0] -= event == "line"
        if event == "line" and not left[0]:
            raise KeyboardInterrupt
        return lines

    def calls(frame, event, argument):
        code = frame.f_code
        return lines if code.co_filename == _arrivals.__file__ and not code.co_name.startswith("<") else None

    sys.settrace(calls)
    try:
        statedict.load_state_dict(model, path)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracing)
    return False


def test_an_interrupt_leaves_the_model_whole(tmp_path, way, monkeypatch):
    """KeyboardInterrupt at any line of a load of several groups and stages: the model is as it was, or as in the file."""
    for name, value in {"SMALL": 1000, "STAGE": 1500, "GROUP": 5000}.items():
        monkeypatch.setattr(_arrivals, name, value)
    sizes = [1000, 100, 1000, 100, 100, 100]
    statedict.save({str(n): torch.ones(size) for n, size in enumerate(sizes)}, tmp_path / "m.safetensors")
    found, at = [], 1
    while interrupted(model := torch.nn.ParameterList(map(torch.zeros, sizes)), tmp_path / "m.safetensors", at):
        found.append(torch.cat(list(model)).unique().tolist())
        at += 1
    assert len(found) > 100
    assert {*map(tuple, found)} == {(0.0,), (1.0,)}


class Own(torch.nn.Linear):
    """Its own loader counts its calls, which is undone if the load fails."""

    calls = 0

    def _load_from_state_dict(self, *arguments):
        self.calls += 1
        super()._load_from_state_dict(*arguments)

    # So that only the module is recorded, not the whole tree.
    _load_from_state_dict.__module__ = "torch.nn.modules.own"


@pytest.mark.parametrize("way", ["kept"], indirect=True)
def test_what_a_loader_has_changed_is_undone_with_the_rest(tmp_path, way, monkeypatch):
    """If a failed load would undo more than what it reads, it can be undone until the end: the tensors are backed up."""
    model = torch.nn.Sequential(Own(20, 30), torch.nn.Linear(30, 1000))
    statedict.save({name: torch.zeros_like(value) for name, value in model.state_dict().items()}, tmp_path / "m.pt")
    before, read = elements(model), _arrivals._read_straight

    def interrupted(group, verify):
        read(group, verify)
        raise KeyboardInterrupt

    monkeypatch.setattr(_arrivals, "_read_straight", interrupted)
    with pytest.raises(KeyboardInterrupt):
        statedict.load_state_dict(model, tmp_path / "m.pt")
    assert unchanged(model, before)
    assert model[0].calls == 0


@pytest.mark.parametrize("size", [SIZES["large"]])
@pytest.mark.parametrize("path", ["torch"], indirect=True)
@pytest.mark.parametrize("way", ["backed up"], indirect=True)
@pytest.mark.parametrize("threads", [True, False])
def test_groups_are_backed_up_one_after_the_other(path, size, way, threads, monkeypatch):
    """The last group fails when all others have been read: nothing has changed, also if the system refuses threads."""
    monkeypatch.setattr(_arrivals, "GROUP", 1)
    if not threads:
        monkeypatch.setattr(
            "threading.Thread.start", lambda self: (_ for _ in ()).throw(RuntimeError("no more threads"))
        )
    model = Model(*size, 0.5)
    before, overwritten = elements(model), []
    with statedict.open(path) as checkpoint:
        source = checkpoint.state_dict().leaf("p0").storage.source
        read = source.read_into

        def fails_at_the_last(reads, *, verify):
            read(reads, verify=verify)
            overwritten.append(sum(not torch.equal(before[name], value) for name, value in model.named_parameters()))
            if len(overwritten) == size[0]:
                raise OSError(errno.EIO, "the disk is gone")

        source.read_into = fails_at_the_last
        with pytest.raises(OSError, match="the disk is gone"):
            statedict.load_state_dict(model, checkpoint)
    assert overwritten == [1, 2, 3]
    assert unchanged(model, before)


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_tensor_without_elements_does_not_keep_others_from_being_read(tmp_path, empty):
    """It has no address, so there is no table of all tensors; the others are read as without it."""
    expected = {str(n): torch.full((0 if n == empty else 3, 2), float(n + 1)) for n in range(3)}
    torch.save(expected, tmp_path / "x.pt")
    module = torch.nn.Module()
    for name, value in expected.items():
        module.register_parameter(name, torch.nn.Parameter(torch.zeros_like(value)))
    assert statedict.load_state_dict(module, tmp_path / "x.pt").ok
    assert all(torch.equal(module.get_parameter(name), value) for name, value in expected.items())
