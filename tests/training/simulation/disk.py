"""A disk in memory that loses power: what is durable is what fsync has promised, and nothing else.

The model, which is that of POSIX with the guarantees that ext4, XFS and Btrfs share:

- The bytes of a file become durable by an fsync of the file. Without it, each write may be kept, lost or torn, and the
  part of the file that it was for is then what it was before, or zeros.
- A change of names (create, link, unlink, rename, exchange, mkdir, rmdir) becomes durable by an fsync of a directory that
  it changes. Without it, it may be kept or lost, whatever happens to the others, except that changes of one name are kept
  in their order, and that a change of two names is kept as a whole.
- An fsync of a file says nothing about its name, and one of a directory nothing about the files in it.

`Disk.cut` draws one of the states in which the disk may be found when the power is back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple


@dataclass(eq=False, slots=True)
class Node:
    """A file or directory.

    Attributes:
        entries: of a directory: the names in it now. None for a file.
        durable_entries: those that a power cut cannot take away.
        content, durable_content: the same for the bytes of a file.
        writes: what was written to the file since its last fsync: (offset, bytes).
        names: how many names it has.
        modified: when its bytes, or the names in it, were changed, in nanoseconds.
        changed: when anything about it was changed, its own names included.
        lock: the open file that has locked it.
    """

    number: int
    entries: dict[str, Node] | None = None
    durable_entries: dict[str, Node] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    durable_content: bytes = b""
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    names: int = 0
    modified: int = 0
    changed: int = 0
    lock: object = None

    @property
    def is_folder(self) -> bool:
        return self.entries is not None


class Name(NamedTuple):
    """A name in a directory, and what it stands for after a change; None: nothing."""

    folder: Node
    name: str
    node: Node | None


Change = tuple[Name, ...]


class Disk:
    """Files and directories by absolute path, now and after a power cut. `clock` returns nanoseconds.

    Raises the OSError that Linux raises.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._made = 0
        self.root = self._new(folder=True)
        # The changes of names that are not durable yet, oldest first.
        self._pending: list[Change] = []

    # names

    def find(self, path: str) -> Node:
        """The file or directory at a path."""
        node = self.root
        for part in path.split("/"):
            if part:
                node = self._child(node, part, path)
        return node

    def create(self, path: str, *, folder: bool = False) -> Node:
        """Make an empty file or directory; FileExistsError if the name is taken."""
        parent, name = self._place(path)
        if name in parent:
            raise error(errno.EEXIST, path)
        node = self._new(folder=folder)
        self._change((Name(parent.node, name, node),))
        return node

    def link(self, source: str, target: str) -> None:
        parent, name = self._place(target)
        node = self.find(source)
        if name in parent:
            raise error(errno.EEXIST, source, target)
        self._change((Name(parent.node, name, node),))

    def unlink(self, path: str) -> None:
        parent, name = self._place(path)
        if self._child(parent.node, name, path).is_folder:
            raise error(errno.EISDIR, path)
        self._change((Name(parent.node, name, None),))

    def rmdir(self, path: str) -> None:
        parent, name = self._place(path)
        node = self._child(parent.node, name, path)
        if node.entries is None:
            raise error(errno.ENOTDIR, path)
        if node.entries:
            raise error(errno.ENOTEMPTY, path)
        self._change((Name(parent.node, name, None),))

    def rename(self, source: str, target: str) -> None:
        """Rename, replacing a file, or an empty directory by a directory."""
        (old, old_name), (new, new_name) = self._place(source), self._place(target)
        node = self._child(old.node, old_name, source)
        there = new.entries.get(new_name)
        if there is not None:
            if there.is_folder != node.is_folder:
                raise error(errno.EISDIR if there.is_folder else errno.ENOTDIR, source, target)
            if there.entries:
                raise error(errno.ENOTEMPTY, source, target)
        self._change((Name(old.node, old_name, None), Name(new.node, new_name, node)))

    def exchange(self, one: str, other: str) -> None:
        """Swap what two names stand for."""
        (first, first_name), (second, second_name) = self._place(one), self._place(other)
        nodes = self._child(first.node, first_name, one), self._child(second.node, second_name, other)
        self._change((Name(first.node, first_name, nodes[1]), Name(second.node, second_name, nodes[0])))

    def list(self, path: str) -> dict[str, Node]:
        """What is in a directory, by name."""
        entries = self.find(path).entries
        if entries is None:
            raise error(errno.ENOTDIR, path)
        return entries

    # bytes

    def write(self, node: Node, offset: int, data: bytes) -> None:
        """Write at an offset; what lies between the end and the offset becomes zeros."""
        node.writes.append((offset, data))
        _put(node.content, offset, data)
        self.touch(node)

    def resize(self, node: Node, nbytes: int) -> None:
        """Cut a file off, or add zeros to it."""
        if nbytes < len(node.content):
            # Kept as the loss of all bytes, which is rewritten: a file is only ever cut off by those who rewrite it.
            node.durable_content = node.durable_content[:nbytes]
            node.writes = [(offset, data[: max(0, nbytes - offset)]) for offset, data in node.writes]
            del node.content[nbytes:]
        elif nbytes > len(node.content):
            self.write(node, len(node.content), bytes(nbytes - len(node.content)))
        self.touch(node)

    def touch(self, node: Node) -> None:
        """Give a file or directory the time of now."""
        node.modified = node.changed = self._clock()

    # power

    def sync(self, node: Node) -> None:
        """Make durable: the bytes of a file, or the names in a directory (and what those changes need)."""
        if node.entries is None:
            node.durable_content = bytes(node.content)
            node.writes.clear()
            return
        needed, kept, names = [], [], set[tuple[int, str]]()
        for change in reversed(self._pending):
            own = {(name.folder.number, name.name) for name in change}
            if any(name.folder is node for name in change) or not names.isdisjoint(own):
                names |= own
                needed.append(change)
            else:
                kept.append(change)
        for change in reversed(needed):
            _make_durable(change)
        self._pending = kept[::-1]

    def cut(self, random: Random) -> None:
        """Lose the power: the disk is then in one of the states that are possible."""
        for change in self._survivors(random):
            _make_durable(change)
        self._pending = []
        nodes = [self.root]
        seen = {self.root.number}
        for node in nodes:
            node.lock = None
            node.names = 0
            if node.entries is not None:
                node.entries = dict(node.durable_entries)
                new = [child for child in node.entries.values() if child.number not in seen]
                nodes += {child.number: child for child in new}.values()
                seen.update(child.number for child in new)
            elif node.writes:
                node.content = bytearray(_left_of(node, random))
                node.durable_content = bytes(node.content)
                node.writes = []
        for node in nodes:
            for child in (node.entries or {}).values():
                child.names += 1

    def _survivors(self, random: Random) -> Iterator[Change]:
        """The changes of names that are kept: most often all before some instant, as of a journal, or any of them."""
        total = len(self._pending)
        way = random.randrange(4)
        if way == 0:
            yield from self._pending[: random.randint(0, total)]
            return
        odd = random.randrange(total) if total else 0
        lost = set[tuple[int, str]]()
        for number, change in enumerate(self._pending):
            own = {(name.folder.number, name.name) for name in change}
            is_kept = (random.random() < 0.5, number == odd, number != odd)[way - 1]
            if is_kept and lost.isdisjoint(own):
                yield change
            else:
                lost |= own

    # parts

    def _new(self, *, folder: bool) -> Node:
        self._made += 1
        now = self._clock()
        return Node(self._made, {} if folder else None, modified=now, changed=now)

    def _place(self, path: str) -> tuple[_Parent, str]:
        above, _, name = path.rstrip("/").rpartition("/")
        node = self.find(above)
        if node.entries is None:
            raise error(errno.ENOTDIR, path)
        return _Parent(node, node.entries), name

    def _child(self, node: Node, name: str, path: str) -> Node:
        if node.entries is None:
            raise error(errno.ENOTDIR, path)
        found = node.entries.get(name)
        if found is None:
            raise error(errno.ENOENT, path)
        return found

    def _change(self, change: Change) -> None:
        for folder, name, node in change:
            assert folder.entries is not None
            old = folder.entries.pop(name, None)
            if old is not None:
                old.names -= 1
                old.changed = self._clock()
            if node is not None:
                folder.entries[name] = node
                node.names += 1
                node.changed = self._clock()
            self.touch(folder)
        self._pending.append(change)


class _Parent(NamedTuple):
    node: Node
    entries: dict[str, Node]

    def __contains__(self, name: object) -> bool:
        return name in self.entries


def _make_durable(change: Change) -> None:
    for folder, name, node in change:
        if node is None:
            folder.durable_entries.pop(name, None)
        else:
            folder.durable_entries[name] = node


def _left_of(node: Node, random: Random) -> bytes:
    """What is left of a file that was written and not flushed."""
    way = random.randrange(4)
    if way == 0:
        return node.durable_content
    if way == 1:
        return bytes(node.content)
    if way == 2:
        # Its size was kept, its bytes were not.
        return node.durable_content + bytes(max(0, len(node.content) - len(node.durable_content)))
    left = bytearray(node.durable_content)
    for offset, data in node.writes:
        if random.random() < 0.7:
            _put(left, offset, data[: random.choice((len(data), random.randint(0, len(data))))])
    return bytes(left)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def contents_of(folder: Node | None) -> dict[str, dict[str, bytes]]:
    """The files below each name in a directory, by path; a file itself has the path ""."""
    entries = {} if folder is None or folder.entries is None else folder.entries
    return {name: dict(_files(node, "")) for name, node in entries.items()}


def _files(node: Node, path: str) -> Iterator[tuple[str, bytes]]:
    if node.entries is None:
        yield path, bytes(node.content)
    for name, child in (node.entries or {}).items():
        yield from _files(child, f"{path}/{name}" if path else name)


def error(number: int, path: str, other: str | None = None) -> OSError:
    """The error of the system with that number."""
    return OSError(number, os.strerror(number), path, None, other)
