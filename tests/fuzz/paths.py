"""One pickle read in three ways, which must agree: by the machine alone, with records read one by one, and in columns."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from tests.hostile.reading import check_reach

from statedict import files
from statedict.errors import FormatError
from statedict.formats._pickle import Parsed, parse
from statedict.formats._pickle.reading import _opcodes, _record_columns
from statedict.formats.torch_files._storages import ArchiveStorages
from statedict.formats.zip import _archive as _zip
from statedict.formats.zip._archive import Archive, open_zip
from statedict.state import Compound, Leaf, Opaque

from .records import SIZES, STORAGES


class Different(Exception):
    """The quick path and the plain machine do not agree."""


@cache
def archive() -> Archive:
    """The archive whose storages the pickles name, its members in columns."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as opened:
        for number in range(STORAGES):
            opened.writestr(f"a/data/{number}", bytes([number]) * SIZES[number % len(SIZES)])
    raw.seek(0)
    with _set(_zip, "FEW", 1):
        return open_zip(files.open(raw))


def read(raw: bytes) -> object:
    """The pickle's content; raises FormatError where all ways refuse it alike, Different where they do not agree."""
    with _set(_opcodes, "read_records", lambda machine, at: at):
        expected = _outcome(raw, rows=False)
    one_by_one = _outcome(raw, rows=False)
    few = 1 + len(raw) % 12
    with _set(_record_columns, "FEW", few), _set(_record_columns, "LEAST", 256 << len(raw) % 8):
        in_columns = _outcome(raw, rows=True)
    for way, found in (("one by one", one_by_one), (f"stretches of {few}", in_columns)):
        if found != expected:
            raise Different(f"{way}: {str(found)[:2000]} instead of {str(expected)[:2000]}")
    if isinstance(expected, tuple) and expected[0] == "refused":
        raise FormatError(expected[2])
    return expected


def _outcome(raw: bytes, *, rows: bool) -> object:
    """What a pickle holds, as something to compare; or how it is refused, and where."""
    storages = ArchiveStorages(archive(), "a/data/", False)
    try:
        parsed: Parsed = parse(raw, storage=storages.find, rows=storages if rows else None)
        storages.settle(parsed.value)
    except FormatError as error:
        return "refused", type(error), str(error), error.offset
    check_reach(parsed.value)
    return _shown(parsed.value, {}), parsed.globals, parsed.end


def _shown(value: Any, seen: dict[int, int]) -> object:
    """A tree with objects that can be shared told apart by their numbers, tensors by what they are and lie in."""
    if id(value) in seen:
        return "again", seen[id(value)]
    if isinstance(value, (Leaf, Compound, Opaque, dict, list)):
        seen[id(value)] = len(seen)
    if isinstance(value, Leaf):
        storage = value.storage
        return "leaf", value.spec, value.traits, storage.key[1:], storage.where, storage.nbytes, storage.location
    if isinstance(value, Opaque):
        return "opaque", value.path, *(_shown(part, seen) for part in (value.args, value.state, value.items))
    if isinstance(value, dict):
        return type(value), [(_shown(key, seen), _shown(part, seen)) for key, part in value.items()], _vars(value)
    if isinstance(value, (list, tuple)):
        return type(value), [_shown(part, seen) for part in value]
    return repr(value)


def _vars(value: object) -> object:
    return repr(getattr(value, "__dict__", None))


@contextmanager
def _set(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
