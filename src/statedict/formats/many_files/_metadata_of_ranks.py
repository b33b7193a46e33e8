"""Join the metadata of ranks that saved without collectives.

With `use_collectives=False`, every rank of torch.distributed.checkpoint writes its own metadata: its own chunks of
sharded tensors, and all of the values that every rank has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from statedict.state import Opaque

FIELDS = ("state_dict_metadata", "planner_data", "storage_data")


def join_metadata(ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the joined metadata: for each tensor the chunks of all ranks, for other values that of the first rank."""
    if len(ranks) == 1:
        return ranks[0]
    merged: dict[str, dict[Any, Any]] = {
        name: {} for name in FIELDS if any(type(rank.get(name)) is dict for rank in ranks)
    }
    chunks: dict[Any, dict[Any, Any]] = {}
    for rank in ranks:
        for field, known in merged.items():
            for key, value in _dict(rank.get(field)).items():
                known.setdefault(key, value)
        for name, record in _dict(rank.get("state_dict_metadata")).items():
            found = chunks.setdefault(name, {})
            for chunk in _chunks(record):
                found.setdefault(_offsets(chunk), chunk)
    for name, record in merged.get("state_dict_metadata", {}).items():
        _chunks(record)[:] = chunks[name].values()
    return merged


def _chunks(record: object) -> list[Any]:
    chunks = record.attributes().get("chunks") if isinstance(record, Opaque) else None
    return chunks if isinstance(chunks, list) else []


def _offsets(chunk: object) -> object:
    """Return what distinguishes the chunks of one tensor; a chunk without offsets equals no other."""
    offsets = chunk.attributes().get("offsets") if isinstance(chunk, Opaque) else None
    plain = isinstance(offsets, tuple) and all(type(offset) is int for offset in offsets)
    return offsets if plain else id(chunk)


def _dict(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
