"""Several files that belong together: a reader finds the old ones or the new ones, whatever happens in between."""

import errno
import json
import os
from functools import partial
from pathlib import Path

import pytest
from tests.forked import child

from statedict.errors import DiskFullError
from statedict.files import FileSet, Frame, System, write_set
from statedict.files import system as seam

OPERATIONS = [name for name in vars(System) if not name.startswith("_")]


def part(text, error=None):
    def make():
        if error is not None:
            raise error
        return text.encode()

    return Frame(len(text), make)


def earlier(path):
    """What the head names, as JSON."""
    head = Path(f"{path}.json")
    return [head.name, *json.loads(head.read_text())] if head.exists() else []


def wanted(path, contents, error=None):
    """A set of files that hold these texts; the last one cannot be made, if there is an error."""
    errors = [None] * (len(contents) - 1) + [error]
    return FileSet(
        path=str(path),
        head=f"{path}.json",
        head_parts=lambda names: [part(json.dumps(names))],
        others=[[part(text, bad)] for text, bad in zip(contents, errors)],
        names=lambda mark: [f"m{mark and '-' + mark}-{n}-of-{len(contents)}" for n in range(len(contents))],
        earlier=lambda: earlier(path),
        ours=lambda name: name.startswith("m") and "-of-" in name,
    )


def found(path):
    """What a reader finds: the texts of the files that the head names."""
    head = Path(f"{path}.json")
    return [(head.parent / name).read_text() for name in json.loads(head.read_text())] if head.exists() else None


def names(folder):
    return sorted(os.listdir(folder))


def test_all_are_written(tmp_path):
    """Each file gets its parts under its plain name, and nothing else is left in the directory."""
    write_set(wanted(tmp_path / "m", ["one", "two"]))
    assert found(tmp_path / "m") == ["one", "two"]
    assert names(tmp_path) == ["m-0-of-2", "m-1-of-2", "m.json"]


def test_no_file_is_replaced_but_the_head(tmp_path):
    """Files of a name that is taken get a mark; those that are left over are deleted, and files of others are not."""
    (tmp_path / "other-0-of-2").write_text("other")
    (tmp_path / "m-1-of-3").write_text("somebody's, whom no head names")
    write_set(wanted(tmp_path / "m", ["one", "two"]))
    write_set(wanted(tmp_path / "m", ["ONE", "TWO"]))
    assert found(tmp_path / "m") == ["ONE", "TWO"]
    marked = json.loads((tmp_path / "m.json").read_text())
    assert names(tmp_path) == sorted([*marked, "m-1-of-3", "m.json", "other-0-of-2"])
    write_set(wanted(tmp_path / "m", ["1", "2", "3"]))
    assert found(tmp_path / "m") == ["1", "2", "3"]
    assert (tmp_path / "m-1-of-3").read_text() == "somebody's, whom no head names"


def test_a_name_that_is_taken_meanwhile_is_left_alone(tmp_path):
    """Another save that makes a file of a chosen name wins it; this one chooses other names, and loses nothing."""

    class Raced(System):
        raced = False

        def link(self, source, target):
            if not self.raced and target.endswith("1-of-2"):
                self.raced = True
                Path(target).write_text("theirs")
            super().link(source, target)

    write_set(wanted(tmp_path / "m", ["one", "two"]), system=Raced())
    assert found(tmp_path / "m") == ["one", "two"]
    assert (tmp_path / "m-1-of-2").read_text() == "theirs"
    assert len(names(tmp_path)) == 4


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_system_without_hard_links(tmp_path, taken):
    """There a file gets its name by a rename, if no file has it."""

    class Plain(System):
        def link(self, source, target):
            if taken and target.endswith("m-1-of-2") and not os.path.exists(target):
                Path(target).write_text("theirs")
            raise OSError(errno.EPERM, "no hard links")

    write_set(wanted(tmp_path / "m", ["one", "two"]), system=Plain())
    assert found(tmp_path / "m") == ["one", "two"]
    assert len(names(tmp_path)) == 3 + taken


@pytest.mark.parametrize("count", range(1, 4))
def test_nothing_has_changed_where_one_cannot_be_made(tmp_path, count):
    """An error while any of them is written leaves all as they were, and nothing beside them."""
    write_set(wanted(tmp_path / "m", ["one", "two"]))
    before = names(tmp_path)
    with pytest.raises(ValueError, match="no"):
        write_set(wanted(tmp_path / "m", ["new"] * count, ValueError("no")))
    assert (names(tmp_path), found(tmp_path / "m")) == (before, ["one", "two"])


def test_room_for_all_is_looked_for_first(tmp_path):
    """A disk too small for all of them is found out before anything is written."""

    class Small(System):
        def free(self, directory):
            return 9

    asked = []
    contents = [Frame(5, lambda: asked.append(1) or b"12345")]
    with pytest.raises(DiskFullError, match=r"/m: \d+ bytes are needed, but only 9 are free"):
        write_set(wanted(tmp_path / "m", ["one"])._replace(others=[contents, contents]), system=Small())
    assert (names(tmp_path), asked) == ([], [])


def test_the_files_have_the_mode_of_the_old_head(tmp_path):
    """A set that replaces another is as private as that was."""
    write_set(wanted(tmp_path / "m", ["one", "two"]))
    os.chmod(tmp_path / "m.json", 0o640)
    write_set(wanted(tmp_path / "m", ["ONE", "TWO", "THREE"]))
    assert {oct((tmp_path / name).stat().st_mode & 0o777) for name in names(tmp_path)} == {"0o640"}


class Watched(System):
    """Remembers the order of what is forced to the disk and named."""

    def __init__(self):
        self.done = []

    def sync(self, fd):
        self.done.append("sync directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "sync")
        super().sync(fd)

    def link(self, source, target):
        self.done.append("name")
        super().link(source, target)

    def replace(self, old, new):
        self.done.append("replace")
        super().replace(old, new)

    def unlink(self, path):
        if not path.endswith(".tmp"):
            self.done.append("delete")
        super().unlink(path)


@pytest.mark.only_on("linux", "macos")
@pytest.mark.parametrize("durable", ["full", "rename"])
def test_each_is_on_the_disk_before_it_is_relied_upon(tmp_path, durable):
    """The files and their names come before the head's rename, and that before the old files are deleted."""
    write_set(wanted(tmp_path / "m", ["one", "two"]))
    system = Watched()
    write_set(wanted(tmp_path / "m", ["ONE"]), durable=durable, system=system)
    one = ["sync", "name", "sync directory"]
    assert system.done == [*one, "sync", "replace", "sync directory", "delete", "delete"]


def test_durable_is_a_known_word(tmp_path):
    """Another word for `durable` is an error before anything is touched."""
    with pytest.raises(ValueError, match="durable must be one of"):
        write_set(wanted(tmp_path / "m", ["one"]), durable="maybe")
    assert names(tmp_path) == []


class Faulty(System):
    """Counts calls; before or after the n-th it calls `fault`."""

    def __init__(self, at, fault, *, after):
        self.count, self.at, self.fault, self.after = 0, at, fault, after

    def __getattribute__(self, name):
        call = super().__getattribute__(name)
        if name not in OPERATIONS:
            return call

        def counted(*arguments, **options):
            self.count += 1
            now = self.count == self.at
            # A file is closed even if `close` fails.
            if now and not self.after and name != "close":
                self.fault()
            result = call(*arguments, **options)
            if now:
                self.fault()
            return result

        return counted


def trouble():
    raise OSError(errno.EIO, "I/O error")


def interrupt():
    raise KeyboardInterrupt


def killed(save):
    """Whether the save, in a process of its own, was killed."""
    code = os.waitstatus_to_exitcode(os.waitpid(child(save), 0)[1])
    assert code in (0, 9)
    return code == 9


def failed(save):
    """Whether the save raised an error."""
    try:
        save()
    except (OSError, KeyboardInterrupt):
        return True
    return False


FAULTS = {"kill": (killed, lambda: os._exit(9)), "EIO": (failed, trouble), "^C": (failed, interrupt)}


def calls_of(old, new, folder):
    """How many calls such a save makes."""
    folder.mkdir()
    if old:
        write_set(wanted(folder / "m", old))
    system = Faulty(0, None, after=False)
    write_set(wanted(folder / "m", new), system=system)
    return system.count


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("old", [None, ["one", "two"]], ids=["first", "over"])
def test_whatever_ends_a_save_a_reader_finds_one_set(tmp_path, old, count, kind, after):
    """A save that ends at any system call, before or after it is done, leaves the old set or the new one for a reader; the
    next save leaves its own files only."""
    if seam.MUST_CLOSE and after and kind != "kill":
        pytest.skip("an error after a file was opened loses its descriptor, and an open file cannot be deleted")
    new = ["ONE", "TWO", "THREE"][:count]
    ended, fault = FAULTS[kind]
    calls = calls_of(old, new, tmp_path / "counted")
    assert calls > 20
    for at in range(1, calls + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "other-0-of-2").write_text("other")
        if old:
            write_set(wanted(folder / "m", old), durable=False)
        before = names(folder)
        save = partial(write_set, wanted(folder / "m", new), system=Faulty(at, fault, after=after))
        if ended(save):
            assert found(folder / "m") in (old, new)
            if kind != "kill" and found(folder / "m") == old:
                assert names(folder) == before
        else:
            assert found(folder / "m") == new
        write_set(wanted(folder / "m", ["last", "save"]), durable=False)
        assert found(folder / "m") == ["last", "save"]
        assert len(names(folder)) == 4
