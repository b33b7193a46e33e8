"""Read safetensors files: a flat mapping of names to tensors, and in files of ours their checksums and ties."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from itertools import repeat
from typing import Any

from statedict.files import File
from statedict.state import Leaf, Spec, Storage, contiguous_strides

from .._limits import LIMITS, Limits
from ..checkpoint._checkpoint import Checkpoint
from ..checkpoint._verify import check_storages
from ..storages._extent import Extent, FileSource
from ._annotations import Annotations, read_annotations, user_metadata
from ._header import Header, read_header
from ._parts import ONE_RANK, SHARDING_INFO, as_parts
from ._wrappers import put_together


def read_safetensors(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint in a safetensors file; its object maps names to leaves, in the order of the header."""
    header = read_header(file, limits)
    annotations = read_annotations(header, file.name, limits)
    # Members have the names of their tensors, so a message names the tensor anyway.
    source = FileSource(file)
    stored = _storages(source, header, annotations)
    storages = dict(stored)
    for first, *others in annotations.ties if annotations else []:
        storages.update(dict.fromkeys(others, stored[first]))
        stored[first].where = stored[first].where._replace(twins=tuple(stored[name].where for name in others))
    state: dict[str, Any] = OrderedDict()
    for name, entry in header.entries.items():
        spec = Spec(entry.dtype, entry.shape, contiguous_strides(entry.shape))
        state[name] = Leaf(spec, storages[name])
    if SHARDING_INFO in header.metadata:
        state = OrderedDict(as_parts(state, header.metadata, file.name, limits))
    if annotations is not None and annotations.wrappers:
        state = put_together(state, annotations.wrappers, file.name)
    if annotations is not None and annotations.modules is not None:
        state._metadata = annotations.modules  # type: ignore[attr-defined]
    kept = user_metadata(header.metadata)
    notes = []
    if SHARDING_INFO in header.metadata:
        notes.append(ONE_RANK)
    if annotations is None:
        stale = " (those in the metadata belong to another file)" if len(kept) < len(header.metadata) else ""
        notes.append(f"the file has no checksums: damage to its tensors cannot be detected{stale}")
    return Checkpoint(
        file.name,
        "safetensors",
        state,
        size=file.size,
        producer="safetensors" if annotations is None else "statedict",
        notes=notes,
        metadata=kept,
        checks=partial(check_storages, source, stored),
        close=file.close,
    )


def _storages(source: FileSource, header: Header, annotations: Annotations | None) -> dict[str, Storage]:
    """Return the storage of each name; tied names share one."""
    storages = {}
    for (name, entry), crc in zip(header.entries.items(), annotations.crcs if annotations else repeat(None)):
        nbytes = entry.stop - entry.start
        extent = Extent(header.end + entry.start, nbytes, name, crc, entry.dtype.itemsize)
        storages[name] = source.storage(name, nbytes, extent)
    return storages
