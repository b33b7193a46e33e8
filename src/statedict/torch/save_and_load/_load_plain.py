"""Read checkpoints of plain tensors in plain containers on the CPU for torch.load, with our inert reader.

Nearly all checkpoints are of this kind. Their pickles refer to nothing but tensors, so the result does not depend on the
reader; ours takes a fifth of the time, and reads tensors as rows of a table. Everything else is left to the unpicklers.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import torch

from statedict.errors import BoundsError, FormatError
from statedict.formats.torch_archive import Archive, ArchiveStorages, StorageId, TypedStorage, parse
from statedict.state import PLAIN, DType, Leaf, Read, Table, Traits, map_tree, rows_of

from ..modules._stages import split, stages
from ..tensors._dtypes import TORCH_DTYPES
from ..tensors._library import with_traits
from ..tensors._storages import bytes_of, new_storage
from ._load_locations import MapLocation

GLOBALS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch.storage.UntypedStorage",
    *(f"torch.{kind.__name__}" for kind in torch._storage_classes if kind.__module__ == "torch"),
    *(str(dtype) for dtype in TORCH_DTYPES.values()),
}
# PyTorch warns of others.
PROTOCOL_2 = b"\x80\x02"
ATOMS = {str, int, float, bool, type(None)}
CONTAINERS = {dict, OrderedDict, list, tuple}
# Distinguishes from None, which is an object that can be saved.
NOT_PLAIN = object()


def is_here(where: MapLocation) -> bool:
    """Return whether storages saved from the CPU are loaded to it, and no setting or mode of PyTorch changes the result."""
    if not (where is None or (isinstance(where, (str, torch.device)) and str(where) == "cpu")):
        return False
    theirs: Any = torch.serialization
    return (
        theirs._package_registry[0][2] is theirs._cpu_deserialize
        and not theirs._serialization_tls.skip_data
        and not torch._C._len_torch_function_stack()
        and not torch._C._len_torch_dispatch_stack()
        and torch._guards.active_fake_mode() is None
    )


def load_plain(archive: Archive, prefix: str, content: bytes) -> Any:
    """Return the object whose pickle is `content`, with its storages in members `prefix` + key; NOT_PLAIN if it contains
    anything else.

    Raises BoundsError for a tensor that extends beyond its storage.
    """
    if not content.startswith(PROTOCOL_2):
        return NOT_PLAIN
    storages = ArchiveStorages(archive, prefix, False)

    def find(wanted: StorageId) -> TypedStorage:
        found = storages.find(wanted)
        if found.nbytes != found.storage.nbytes or wanted.location != "cpu":
            raise FormatError("the storage is smaller than its member, or not on the CPU")
        return found

    try:
        parsed = parse(content, storage=find, rows=storages, file=archive.file.name, member="data.pkl")
        storages.settle(parsed.value)
    except BoundsError:
        raise
    except FormatError:
        return NOT_PLAIN
    if not GLOBALS.issuperset(named.path for named in parsed.globals):
        return NOT_PLAIN
    if not all(kind.location == "cpu" and _is_usual(kind.traits) for kind in storages.table.kinds):
        return NOT_PLAIN
    leaves = _leaves(parsed.value)
    if leaves is None:
        return NOT_PLAIN
    tensors = dict(zip(map(id, leaves), _tensors(leaves)))
    return map_tree(parsed.value, lambda value: _revived(value, tensors))


def _leaves(tree: Any) -> list[Leaf] | None:
    """Return the different leaves of the tree; None if anything is not plain (the kinds of rows were tested before)."""
    leaves: dict[int, Leaf] = {}
    seen: set[int] = set()
    stack = [tree]
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind is Leaf:
            if value.table is None and value.traits is not PLAIN and not _is_usual(value.traits):
                return None
            leaves[id(value)] = value
        elif kind in CONTAINERS:
            if id(value) in seen:
                continue
            seen.add(id(value))
            if kind is dict or kind is OrderedDict:
                if not ATOMS.issuperset(map(type, value)) or not _has_metadata_at_most(value):
                    return None
                stack.extend(value.values())
                stack.append(getattr(value, "_metadata", None))
            else:
                stack.extend(value)
        elif kind not in ATOMS and kind is not DType:
            return None
    return list(leaves.values())


def _is_usual(traits: Traits) -> bool:
    return not (traits.conj or traits.neg or traits.subclass or traits.attributes)


def _has_metadata_at_most(mapping: Any) -> bool:
    return type(mapping) is dict or not mapping.__dict__.keys() - {"_metadata"}


def _revived(value: Any, tensors: dict[int, torch.Tensor]) -> Any:
    if type(value) is Leaf:
        return tensors[id(value)]
    return TORCH_DTYPES[value] if type(value) is DType else value


def _tensors(leaves: list[Leaf]) -> list[torch.Tensor]:
    """Return tensors for the leaves, with memory of their own; leaves of one storage share it."""
    table = rows_of(leaves)
    tensors = _views(leaves) if table is None else _rows(table)
    for tensor in tensors:
        tensor._backward_hooks = OrderedDict()
    return tensors


def _rows(table: Table) -> list[torch.Tensor]:
    """Return a tensor for each row: small ones are read together, and large ones straight into their memory."""
    empty = partial(torch.empty, device="cpu")
    dtypes = table.of_each(lambda kind: TORCH_DTYPES[kind.spec.dtype])
    tensors = [empty(shape, dtype=dtype) for shape, dtype in zip(table.of_each(lambda kind: kind.spec.shape), dtypes)]
    small, large = split(table.sizes)
    for stage in stages(tensors, table, small):
        stage.fill(verify=False)
    reads = [Read(table.storage(row), 0, bytes_of(tensors[row].untyped_storage())) for row in large]
    if reads:
        reads[0].storage.source.read_into(reads, verify=False)
    if not torch.is_inference_mode_enabled():
        # As after `set_`, which PyTorch's reader uses.
        torch.autograd.graph.increment_version(tensors)
    traits = table.of_each(lambda kind: kind.traits)
    return tensors if {PLAIN}.issuperset(traits) else list(map(with_traits, tensors, traits))


def _views(leaves: list[Leaf]) -> list[torch.Tensor]:
    """Return tensors for leaves of any storages."""
    storages = {leaf.storage.key: leaf.storage for leaf in leaves if leaf.storage.nbytes}
    memory = {key: new_storage(storage.nbytes) for key, storage in storages.items()}
    reads = [Read(storage, 0, bytes_of(memory[key])) for key, storage in storages.items()]
    if reads:
        reads[0].storage.source.read_into(reads, verify=False)
    return [_view(leaf, memory.get(leaf.storage.key)) for leaf in leaves]


def _view(leaf: Leaf, storage: torch.UntypedStorage | None) -> torch.Tensor:
    dtype, shape, strides, offset = leaf.spec
    tensor = torch.empty(0, dtype=TORCH_DTYPES[dtype], device="cpu")
    # In PyTorch, tensors without memory never share a storage.
    return with_traits(tensor.set_(new_storage(0) if storage is None else storage, offset, shape, strides), leaf.traits)
