"""Write NumPy's .npz and .npy files, which NumPy reads without pickles.

Element types that NumPy does not have (bfloat16, float8 …) are written as NumPy itself does, as bytes of that size
(`<V2`). Their names and ties are recorded in the archive's directory, in an extra field that other readers skip;
metadata is in the archive's comment.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from statedict.files import Frame, Part, Payload
from statedict.state import Leaf, leaf_of, require_in_proportion

from ...errors import FormatError, SaveError
from .._json import read_json
from .._limits import LIMITS
from ..storages._named import ON_META, check_metadata, modules_of, named_leaves, ties
from ..storages._pack import elements_of
from ..storages._shape import require_memory
from ..zip._directory import OUTSIDE
from ..zip._write import Record, check_members, zip_parts
from ._npy_header import element_type, npy_descr, npy_header
from ._read import COMMENT, EXTRA, SUFFIX

# The length of a comment is a 16-bit number.
LONGEST_COMMENT = 0xFFFF


def npz_parts(obj: Any, metadata: Mapping[str, str] | None = None) -> list[Part]:
    """Return the parts of the archive with a mapping of names to tensors. Raises SaveError if `obj` is anything else,
    or has names that an archive cannot store.
    """
    leaves = named_leaves(obj, "npz", _unfit)
    if not leaves:
        raise SaveError("an npz file needs at least one tensor")
    first = {name: group[0] for group in ties(leaves) for name in group[1:]}
    records = [_record(name, leaf, first.get(name)) for name, leaf in leaves.items()]
    check_members(records)
    return zip_parts(records, comment=_comment(obj, metadata or {}))


def npy_parts(obj: Any, metadata: Mapping[str, str] | None = None) -> list[Part]:
    """Return the parts of the file with one tensor. Raises SaveError if `obj` is not one, or has a dtype that NumPy
    does not have.
    """
    leaf = leaf_of(obj)
    if not isinstance(leaf, Leaf) or element_type(npy_descr(leaf.spec.dtype)) is None:
        raise SaveError("an npy file stores one array of a NumPy dtype; use npz or the torch format")
    if leaf.storage.location == "meta":
        raise SaveError(ON_META)
    if metadata:
        raise SaveError("an npy file cannot store metadata")
    require_memory(leaf)
    require_in_proportion([leaf])
    header = npy_header(leaf.spec.dtype, leaf.spec.shape)
    return [Frame(len(header), lambda: header), Payload(leaf.spec.nbytes, lambda: elements_of(leaf))]


def _unfit(name: str, leaf: Leaf) -> str | None:
    if not name or OUTSIDE.search(name) or any(mark in name for mark in "\0\\\n\r"):
        return f"{name!r} is not a valid name for a member of an archive"
    return None


def _record(name: str, leaf: Leaf, tied: str | None) -> Record:
    header = npy_header(leaf.spec.dtype, leaf.spec.shape)
    said = {} if _is_plain(leaf) else {"dtype": leaf.spec.dtype.name}
    if tied is not None:
        said["tied"] = tied
    extra = b""
    if said:
        text = json.dumps(said, ensure_ascii=False).encode()
        extra = struct.pack("<HH", EXTRA, len(text)) + text
    return Record(name + SUFFIX, len(header) + leaf.spec.nbytes, _views(header, leaf), extra)


def _views(header: bytes, leaf: Leaf) -> Callable[[], Iterator[memoryview]]:
    return lambda: chain((memoryview(header),), elements_of(leaf))


def _is_plain(leaf: Leaf) -> bool:
    """Return whether the header alone determines the element type."""
    found = element_type(npy_descr(leaf.spec.dtype))
    return found is not None and found[0] is leaf.spec.dtype


def _comment(obj: Any, metadata: Mapping[str, str]) -> bytes:
    """Return the comment with the metadata and the modules' `_metadata`; the latter only if there is room."""
    check_metadata(metadata)
    said: dict[str, Any] = {"metadata": dict(metadata)} if metadata else {}
    modules = modules_of(obj, "npz")
    for comment in (said | ({"modules": modules} if modules else {}), said):
        text = json.dumps(comment).encode() if comment else b""
        if len(COMMENT) + len(text) <= LONGEST_COMMENT and _is_readable(text):
            return COMMENT + text if text else b""
    raise SaveError(f"the metadata exceeds the {LONGEST_COMMENT:,} bytes of an archive's comment")


def _is_readable(text: bytes) -> bool:
    try:
        read_json(text or b"{}", "npz", LIMITS)
    except FormatError:
        return False
    return True
