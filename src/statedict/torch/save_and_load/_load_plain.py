"""Checkpoints that hold plain tensors in plain containers on the CPU, for torch.load: by our inert reader, in one go.

Nearly all are that. Their pickles name nothing but tensors, so who reads them makes no difference to what comes out; our
reader takes a fifth of the time, and the storages are read in one batch, in the order in which they lie. Whatever is not
that plain is left to the unpicklers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch.nn.parameter import Parameter

from statedict.errors import BoundsError, FormatError
from statedict.formats.torch_archive import Archive, ArchiveStorages, StorageId, TypedStorage, parse
from statedict.state import PLAIN, DType, Leaf, Read, Storage, map_tree

from ..tensors._dtypes import TORCH_DTYPES
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
    """Whether storages saved from the CPU come back to it, and nothing of torch's changes what is loaded."""
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
    """The object whose pickle is `content`, with its storages in members `prefix` + key; NOT_PLAIN if it holds more.

    Raises BoundsError for a tensor that reaches beyond its storage.
    """
    if not content.startswith(PROTOCOL_2):
        return NOT_PLAIN
    storages = ArchiveStorages(archive, prefix, False)

    def find(wanted: StorageId) -> TypedStorage:
        found = storages.find(wanted)
        if found.nbytes != found.storage.nbytes or wanted.location != "cpu":
            raise FormatError("it is not all of its member, or not on the CPU")
        return found

    try:
        parsed = parse(content, storage=find, file=archive.file.name, member="data.pkl")
    except BoundsError:
        raise
    except FormatError:
        return NOT_PLAIN
    if not GLOBALS.issuperset(named.path for named in parsed.globals):
        return NOT_PLAIN
    leaves = _leaves(parsed.value)
    if leaves is None:
        return NOT_PLAIN
    tensors = dict(zip(map(id, leaves), _tensors(leaves)))
    return map_tree(parsed.value, lambda value: _revived(value, tensors))


def _leaves(tree: Any) -> list[Leaf] | None:
    """The tree's leaves, each once; None if anything in it is not plain."""
    leaves: dict[int, Leaf] = {}
    seen: set[int] = set()
    stack = [tree]
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind is Leaf:
            if value.traits is not PLAIN and not _is_usual(value):
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


def _is_usual(leaf: Leaf) -> bool:
    traits = leaf.traits
    return not (traits.conj or traits.neg or traits.subclass or traits.attributes)


def _has_metadata_at_most(mapping: Any) -> bool:
    return type(mapping) is dict or not mapping.__dict__.keys() - {"_metadata"}


def _revived(value: Any, tensors: dict[int, torch.Tensor]) -> Any:
    if type(value) is Leaf:
        return tensors[id(value)]
    return TORCH_DTYPES[value] if type(value) is DType else value


def _tensors(leaves: list[Leaf]) -> list[torch.Tensor]:
    """Tensors for the leaves, those of one storage over the same memory."""
    memory: dict[Any, torch.UntypedStorage] = {}
    reads = []
    for leaf in leaves:
        storage: Storage = leaf.storage
        if storage.nbytes and storage.key not in memory:
            made = memory[storage.key] = new_storage(storage.nbytes)
            reads.append(Read(storage, 0, bytes_of(made)))
    if reads:
        leaves[0].storage.source.read_into(reads, verify=False)
    return [_tensor(leaf, memory.get(leaf.storage.key)) for leaf in leaves]


def _tensor(leaf: Leaf, storage: torch.UntypedStorage | None) -> torch.Tensor:
    dtype, shape, strides, offset = leaf.spec
    tensor = torch.empty(0, dtype=TORCH_DTYPES[dtype], device="cpu")
    # PyTorch gives storages without memory to nobody twice.
    tensor.set_(new_storage(0) if storage is None else storage, offset, shape, strides)
    if leaf.traits.parameter:
        tensor = Parameter(tensor, leaf.traits.requires_grad)
    elif leaf.traits.requires_grad:
        tensor.requires_grad = True
    tensor._backward_hooks = OrderedDict()
    return tensor
