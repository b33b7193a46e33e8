"""The simulated disk keeps what fsync has promised, and loses everything else in every way that is possible."""

import errno
import os
from itertools import count
from pathlib import Path
from random import Random

import pytest
from tests.training.simulation.disk import Disk


def cuts(prepare, times=200):
    """What the disk may contain after a power cut: the names in `/d`, with the content of files."""
    found = set()
    for seed in range(times):
        disk = Disk(count().__next__)
        disk.create("/d", folder=True)
        disk.sync(disk.root)
        prepare(disk)
        disk.cut(Random(seed))
        found.add(frozenset((name, bytes(node.content)) for name, node in disk.list("/d").items()))
    return found


def write(disk, path, data):
    disk.write(disk.create(path), 0, data)


def test_nothing_is_durable_without_a_flush():
    """A new file may be there or not, and its bytes may be there, partly there, zero, or missing."""
    found = cuts(lambda disk: write(disk, "/d/a", b"abcd"))
    assert frozenset() in found
    contents = {content for names in found for _, content in names}
    assert {b"", b"abcd", bytes(4)} <= contents
    assert any(0 < len(content) < 4 for content in contents)


def test_a_file_and_its_name_are_flushed_separately():
    """After an fsync of the file, only its name may be missing; after one of the directory, only its bytes."""

    def flush_file(disk):
        write(disk, "/d/a", b"abcd")
        disk.sync(disk.find("/d/a"))

    def flush_directory(disk):
        write(disk, "/d/a", b"abcd")
        disk.sync(disk.find("/d"))

    assert cuts(flush_file) == {frozenset(), frozenset({("a", b"abcd")})}
    assert {name for names in cuts(flush_directory) for name, _ in names} == {"a"}
    assert frozenset() not in cuts(flush_directory)


def test_a_rename_is_kept_as_a_whole():
    """A file that was renamed has one of its names, never both and never none."""

    def rename(disk):
        write(disk, "/d/a", b"1")
        disk.sync(disk.find("/d/a"))
        disk.sync(disk.find("/d"))
        disk.rename("/d/a", "/d/b")

    assert cuts(rename) == {frozenset({("a", b"1")}), frozenset({("b", b"1")})}


def test_changes_of_different_names_are_kept_in_any_order():
    """Of two files that were created one after the other, the later one may be there alone."""

    def create(disk):
        for name in "ab":
            disk.create(f"/d/{name}")

    assert {frozenset(name for name, _ in names) for names in cuts(create)} == {
        frozenset(),
        frozenset("a"),
        frozenset("b"),
        frozenset("ab"),
    }


def test_an_exchange_is_kept_as_a_whole():
    """Two names that were exchanged stand for either the old files or the new ones."""

    def exchange(disk):
        for name in "ab":
            write(disk, f"/d/{name}", name.encode())
            disk.sync(disk.find(f"/d/{name}"))
        disk.sync(disk.find("/d"))
        disk.exchange("/d/a", "/d/b")

    assert cuts(exchange) == {frozenset({("a", b"a"), ("b", b"b")}), frozenset({("a", b"b"), ("b", b"a")})}


def test_a_hard_link_keeps_the_file():
    """A file with two names keeps its bytes when one is deleted."""
    disk = Disk(count().__next__)
    disk.create("/d", folder=True)
    write(disk, "/d/a", b"1")
    disk.link("/d/a", "/d/b")
    disk.unlink("/d/a")
    assert disk.find("/d/b").names == 1
    assert bytes(disk.find("/d/b").content) == b"1"


@pytest.mark.parametrize(
    ("act", "number"),
    [
        (lambda disk: disk.find("/d/x"), errno.ENOENT),
        (lambda disk: disk.find("/d/file/x"), errno.ENOTDIR),
        (lambda disk: disk.create("/d/file"), errno.EEXIST),
        (lambda disk: disk.link("/d/file", "/d/full"), errno.EEXIST),
        (lambda disk: disk.unlink("/d/full"), errno.EISDIR),
        (lambda disk: disk.rmdir("/d/full"), errno.ENOTEMPTY),
        (lambda disk: disk.rmdir("/d/file"), errno.ENOTDIR),
        (lambda disk: disk.rename("/d/other", "/d/full"), errno.ENOTEMPTY),
        (lambda disk: disk.rename("/d/file", "/d/full"), errno.EISDIR),
        (lambda disk: disk.rename("/d/full", "/d/file"), errno.ENOTDIR),
        (lambda disk: disk.list("/d/file"), errno.ENOTDIR),
    ],
)
def test_errors_are_those_of_linux(tmp_path, act, number):
    """Each call fails as the real one does, which is tried too."""
    disk = Disk(count().__next__)
    for folder in ("/d", "/d/full", "/d/other"):
        disk.create(folder, folder=True)
        os.mkdir(f"{tmp_path}{folder}")
    for file in ("/d/file", "/d/full/inside"):
        disk.create(file)
        Path(f"{tmp_path}{file}").touch()
    with pytest.raises(OSError, match=r"Errno") as caught:
        act(disk)
    assert caught.value.errno == number

    class Real:
        find = staticmethod(lambda path: os.stat(f"{tmp_path}{path}"))
        create = staticmethod(lambda path: Path(f"{tmp_path}{path}").touch(exist_ok=False))
        link = staticmethod(lambda one, other: os.link(f"{tmp_path}{one}", f"{tmp_path}{other}"))
        unlink = staticmethod(lambda path: os.unlink(f"{tmp_path}{path}"))
        rmdir = staticmethod(lambda path: os.rmdir(f"{tmp_path}{path}"))
        rename = staticmethod(lambda one, other: os.rename(f"{tmp_path}{one}", f"{tmp_path}{other}"))
        list = staticmethod(lambda path: os.listdir(f"{tmp_path}{path}"))

    with pytest.raises(OSError, match=r"Errno") as caught:
        act(Real)
    assert caught.value.errno == number
