"""Several files that belong together: all written before any is replaced."""

import errno
import os
from pathlib import Path

import pytest

from statedict.errors import DiskFullError
from statedict.files import Frame, System, write_all


def part(text, error=None):
    def make():
        if error is not None:
            raise error
        return text.encode()

    return Frame(len(text), make)


@pytest.fixture
def old(tmp_path):
    """Three paths, of which two hold old files."""
    paths = [str(tmp_path / name) for name in ("one", "two", "index")]
    for path in paths[:2]:
        Path(path).write_text("old")
    return paths


def contents(folder):
    return {file.name: file.read_text() for file in sorted(folder.iterdir())}


def test_all_are_written(old, tmp_path):
    """Each path gets its parts, and nothing else is left in the directory."""
    write_all({path: [part("new "), part(os.path.basename(path))] for path in old})
    assert contents(tmp_path) == {"index": "new index", "one": "new one", "two": "new two"}


@pytest.mark.parametrize("at", range(3))
def test_none_is_replaced_where_one_cannot_be_made(old, tmp_path, at):
    """An error while any of them is written leaves all as they were."""
    parts = {path: [part("new", ValueError("no") if n == at else None)] for n, path in enumerate(old)}
    with pytest.raises(ValueError, match="no"):
        write_all(parts)
    assert contents(tmp_path) == {"one": "old", "two": "old"}


class Full(System):
    """A disk on which the second file finds no room."""

    count = 0

    def allocate(self, fd, nbytes):
        self.count += 1
        if self.count == 2:
            raise OSError(errno.ENOSPC, "full")


def test_room_for_all_is_reserved_first(old, tmp_path):
    """A disk too small for all of them is found out before anything is written."""
    asked = []
    lazy = [Frame(3, lambda: asked.append(1) or b"new")]
    with pytest.raises(DiskFullError, match="two"):
        write_all(dict.fromkeys(old, lazy), system=Full())
    assert contents(tmp_path) == {"one": "old", "two": "old"}
    assert asked == []


class Watched(System):
    """Remembers the order of what is forced to the disk and renamed."""

    def __init__(self):
        self.done = []

    def sync(self, fd):
        self.done.append("sync")

    def replace(self, old, new):
        self.done.append(os.path.basename(new))
        super().replace(old, new)


def test_all_are_on_the_disk_before_the_first_is_replaced(old):
    """The renames come after the last byte, the last path's rename last."""
    system = Watched()
    write_all({path: [part("new")] for path in old}, system=system)
    assert [done for done in system.done if done != "sync"] == ["one", "two", "index"]
    assert system.done.index("one") >= 3


def test_durable_is_a_known_word(old):
    """Another word for `durable` is an error before anything is touched."""
    with pytest.raises(ValueError, match="durable must be one of"):
        write_all({old[0]: [part("new")]}, durable="maybe")
