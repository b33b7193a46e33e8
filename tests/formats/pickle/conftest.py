"""Shared by the pickle tests: a reader over any storages, torch's own pickles, and a record of Python's audit
events."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from statedict.errors import FormatError
from statedict.formats._pickle import Parsed, Placement, StorageId, TypedStorage, emit, parse
from statedict.state import Leaf, Storage


class Bytes:
    """A Source over bytes: `storage.where` is them."""

    def read_into(self, reads: Any, *, verify: bool = True) -> None:
        for storage, start, into in reads:
            into[:] = storage.where[start : start + len(into)]

    def verify(self, storages: Any) -> None:
        """Nothing to compare with."""

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return None if writable else memoryview(storage.where)


class Storages:
    """The `storage` callback over named bytes; without names, every claim up to 1 MiB is granted, of zeros."""

    def __init__(self, content: Mapping[str, bytes] | None = None) -> None:
        self.content = content
        self.made: dict[str, Storage] = {}
        self.asked: list[StorageId] = []

    def __call__(self, identity: StorageId) -> TypedStorage:
        self.asked.append(identity)
        size = identity.numel * (identity.dtype.itemsize if identity.dtype else 1)
        raw = bytes(min(size, 1 << 20)) if self.content is None else self.content.get(identity.key)
        if raw is None or size > len(raw):
            raise FormatError(f"storage {identity.key!r} has no {size} bytes")
        if identity.key not in self.made or self.content is None:
            self.made[identity.key] = Storage(
                Bytes(), ("test", id(self), identity.key), len(raw), raw, identity.location
            )
        return TypedStorage(self.made[identity.key], identity.dtype, identity.numel)


@pytest.fixture(name="read")
def read_fixture() -> Callable[..., Parsed]:
    """`parse` with storages of any content."""

    def read(data: bytes, **arguments: Any) -> Parsed:
        return parse(data, **{"storage": Storages(), "file": "x.pt", "member": "data.pkl", **arguments})

    return read


@pytest.fixture(scope="session", name="storages")
def storages_fixture() -> type[Storages]:
    return Storages


@pytest.fixture(name="write")
def write_fixture() -> Callable[..., bytes]:
    """`emit` with storages numbered as torch numbers them."""

    def write(obj: Any, **arguments: Any) -> bytes:
        keys: dict[Any, str] = {}

        def store(leaf: Leaf) -> Placement:
            storage = leaf.storage
            return Placement(keys.setdefault(storage.key, str(len(keys))), storage.location, storage.nbytes, leaf.spec)

        return emit(obj, store, **arguments)

    return write


class Saved:
    """What torch.save writes: the pickle, and the bytes of its storages by key."""

    def __init__(self, obj: Any) -> None:
        import torch

        file = io.BytesIO()
        torch.save(obj, file)
        with zipfile.ZipFile(file) as archive:
            content = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        self.pickle = content["data.pkl"]
        self.storages = {name.removeprefix("data/"): raw for name, raw in content.items() if name.startswith("data/")}

    def parse(self, **arguments: Any) -> Parsed:
        return parse(self.pickle, **{"storage": Storages(self.storages), **arguments})


@pytest.fixture(scope="session", name="saved")
def saved_fixture() -> type[Saved]:
    return Saved


_watching: list[list[str]] = []
# Hooks cannot be taken away again, so there is one, and it looks only while somebody watches.
_SILENT = ("object.__getattr__", "sys._getframe", "code.__new__", "gc.", "array.", "builtins.id")


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watching and not event.startswith(_SILENT):
        _watching[-1].append(f"{event} {args!r:.200}")


sys.addaudithook(_hook)


@contextmanager
def _watched() -> Iterator[list[str]]:
    events: list[str] = []
    _watching.append(events)
    try:
        yield events
    finally:
        _watching.pop()


@pytest.fixture(name="watched")
def watched_fixture() -> Callable[[], Any]:
    """A context manager that gives the list of Python's audit events inside it: imports, files, processes, code."""
    return _watched
