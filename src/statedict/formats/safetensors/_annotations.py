"""What statedict records in the metadata of its safetensors files: checksums, ties, the versions of modules, and recipes.

It is stored in `__metadata__`, which other readers ignore. Other tools may copy metadata into files that they have
changed, so it is trusted only if the header as a whole is as we wrote it: it begins in a way that no other writer uses,
and its own checksum matches. A header that begins like that but does not match its checksum is damaged.
"""

from __future__ import annotations

import json
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from statedict.files import crc32

from ...errors import FormatError
from .._json import read_json
from .._limits import Limits
from ._header import Header

PREFIX = "statedict."
# JSON allows a space before a colon, but other writers do not use one.
BEGINNING = b'{"__metadata__" :{"statedict.header":"'
DIGITS = 8
# Recipes of real classes are nested about ten deep.
RECIPE_DEPTH = 100


class Annotations(NamedTuple):
    """The recorded facts: `crcs` in the order of the tensors in the header; the place of each name that the metadata records
    as tied to another (see `_aliases`); `_metadata`; the recipes of tensors that wrap others, by name.
    """

    crcs: list[int]
    places: dict[str, int]
    modules: OrderedDict[str, Any] | None
    wrappers: dict[str, Any]


def read_annotations(header: Header, file: str, limits: Limits) -> Annotations | None:
    """Return the facts in a file of ours, or None if another tool wrote it; raise FormatError if the header is damaged."""
    text, place = header.text, len(BEGINNING)
    ours = text.startswith(BEGINNING[:15]) and text[15:16] != b":"
    if not ours or not any(key.startswith(PREFIX) for key in header.metadata):
        return None
    blank = text[:place] + b"0" * DIGITS + text[place + DIGITS :]
    if not text.startswith(BEGINNING) or text[place : place + DIGITS] != b"%08x" % crc32(blank):
        raise FormatError("the header has changed since it was written", file=file, hint="download or save it again")
    try:
        return _parsed(header, file, limits)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError("the checksums and ties in the metadata are malformed", file=file) from error


def _parsed(header: Header, file: str, limits: Limits) -> Annotations:
    said = header.metadata
    digits = said[f"{PREFIX}crc32"]
    crcs = [int(digits[at : at + DIGITS], 16) for at in range(0, len(digits), DIGITS)]
    if len(crcs) != len(header.entries):
        raise ValueError("a checksum is missing")
    places = read_json(said.get(f"{PREFIX}ties", "{}").encode(), file, limits)
    if not isinstance(places, dict):
        raise TypeError("the places of tied tensors are not a mapping")
    total = len(header.entries) + len(places)
    if not all(type(place) is int and 0 <= place < total for place in places.values()):
        raise ValueError("the place of a tied tensor is not in the state")
    if len(set(places.values())) < len(places):
        raise ValueError("two tied tensors have the same place")
    if not all(name not in header.entries and said[name] in header.entries for name in places):
        raise ValueError("a tensor is tied to one that is not in the file")
    modules = read_json(said.get(f"{PREFIX}modules", "null").encode(), file, limits)
    if modules is not None and not all(isinstance(facts, dict) for facts in modules.values()):
        raise TypeError("the _metadata of a module is not a mapping")
    deep = replace(limits, json_depth=max(limits.json_depth, RECIPE_DEPTH))
    wrappers = read_json(said.get(f"{PREFIX}wrappers", "{}").encode(), file, deep)
    if not isinstance(wrappers, dict):
        raise TypeError("the recipes are not a mapping")
    return Annotations(crcs, places, None if modules is None else OrderedDict(modules), wrappers)


def user_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the user's metadata, without our own keys."""
    return {key: text for key, text in metadata.items() if not key.startswith(PREFIX)}


def begin_header(annotations: Annotations, metadata: Mapping[str, str]) -> str:
    """Return the header up to its first tensor, with zeros in place of its own checksum."""
    said = {f"{PREFIX}crc32": struct.pack(f">{len(annotations.crcs)}I", *annotations.crcs).hex()}
    if annotations.places:
        said[f"{PREFIX}ties"] = json.dumps(annotations.places, ensure_ascii=False)
    if annotations.modules is not None:
        said[f"{PREFIX}modules"] = json.dumps(annotations.modules, ensure_ascii=False)
    if annotations.wrappers:
        said[f"{PREFIX}wrappers"] = json.dumps(annotations.wrappers, ensure_ascii=False, separators=(",", ":"))
    rest = json.dumps({**said, **metadata}, ensure_ascii=False, separators=(",", ":"))
    return f'{BEGINNING.decode()}{"0" * DIGITS}",{rest[1:]}'


def close_header(text: bytes) -> bytes:
    """Return the whole header with its checksum filled in."""
    place = len(BEGINNING)
    return b"%b%08x%b" % (text[:place], crc32(text), text[place + DIGITS :])
