"""States of several processes: each rank writes its part of a directory of torch.distributed.checkpoint.

A model or optimizer is saved as a directory (`.metadata` and `*.distcp`) with the full parameter names, independently of
wrappers (DDP, FSDP2) and sharding. `load_state_dict` reads it like any other file, on any number of ranks.

PyTorch's planner says which items a state has, and which rank writes an item that several have; the messages between the
ranks are the caller's, so that no collective is needed here. Our own writer writes the items.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.distributed as dist

from statedict.files import Part
from statedict.formats.torch_archive import torch_parts
from statedict.state import one_of_each_type

from .snapshots._copy_tree import values_of
from .tensors._copy_pairs import ORDINARY
from .tensors._dtensor import any_sharded, is_sharded, local_of

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
    from torch.distributed.checkpoint.planner import SavePlan, WriteItem

METADATA = ".metadata"


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) if torch.distributed is not initialised.

    >>> ranks()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class RankPart:
    """This rank's part of a state (`sharded_state`), to be written.

    Attributes:
        values: flat name → the value; of a DTensor the local tensor; of a ShardedTensor (FSDP1) its local shards, by their
            offsets. They may be replaced by copies.
        frozen: the names of the parameters that are not trained.
        made: the parts of a file that were made of a tensor, by its item. They can be written again while the tensor is the
            same, whatever its elements: an asynchronous save passes on those of the last, whose copies it overwrites. To
            make them takes 0.3 ms for each tensor, during which the training's thread cannot run.
    """

    def __init__(self, state: dict[str, Any], obj: Any = None) -> None:
        from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

        self._planner = DefaultSavePlanner()
        self._planner.set_up_planner(state, is_coordinator=ranks()[0] == 0)
        self.values = {name: _local(value) for name, value in self._planner.state_dict.items()}
        self.frozen = _frozen_names(obj, self.values)
        self.made: dict[Any, tuple[torch.Tensor, list[Part]]] = {}

    def plan(self) -> SavePlan:
        """The items that this rank has, without their bytes."""
        return self._planner.create_local_plan()

    def files(self, plan: SavePlan, rank: int, worth: int) -> list[RankFile]:
        """Return the files with these items of this rank: the frozen ones have one of their own from `worth` bytes on."""
        frozen = [item for item in plan.items if item.index.fqn in self.frozen]
        if sum(item.tensor_storage_size() or 0 for item in frozen) < worth:
            frozen = []
        apart = {item.index for item in frozen}
        rest = [item for item in plan.items if item.index not in apart]
        return [
            self._file(items, f"__{rank}_{number}.distcp", is_frozen=items is frozen)
            for number, items in enumerate((rest, frozen))
            if items
        ]

    def _file(self, items: Sequence[WriteItem], name: str, *, is_frozen: bool) -> RankFile:
        parts: list[Part] = []
        stored = []
        at = 0
        for item in items:
            made = self._made(item)
            nbytes = sum(part.nbytes for part in made)
            stored.append(Stored(item.index, name, at, nbytes))
            parts += made
            at += nbytes
        return RankFile(name, parts, stored, is_frozen)

    def _made(self, item: WriteItem) -> list[Part]:
        value = self.values[item.index.fqn]
        value = value[item.index.offset] if isinstance(value, dict) else value
        if not isinstance(value, torch.Tensor):
            return torch_parts(value)
        key = (item.index.fqn, item.index.offset)
        tensor, parts = self.made.get(key, (None, []))
        if tensor is not value:
            _, parts = self.made[key] = (value, torch_parts(value))
        return parts


class RankFile(NamedTuple):
    """A file that a rank writes: its parts, the places of the items in it, and whether all of them are frozen."""

    name: str
    parts: list[Part]
    stored: list[Stored]
    is_frozen: bool


class Stored(NamedTuple):
    """Where an item is: `nbytes` bytes at `offset` in a file of the directory."""

    item: MetadataIndex
    file: str
    offset: int
    nbytes: int


def join_plans(plans: Sequence[SavePlan]) -> tuple[list[SavePlan], Metadata]:
    """Return what each rank writes of the items that the ranks have, each of them once, and the metadata of all."""
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    return DefaultSavePlanner().create_global_plan(list(plans))


def dump_metadata(metadata: Metadata, stored: Sequence[Stored]) -> bytes:
    """Return the content of `.metadata`, with the places of all items."""
    from torch.distributed.checkpoint import filesystem

    if version := getattr(filesystem, "CURRENT_DCP_VERSION", None):  # PyTorch 2.7 writes none
        metadata.version = version
    metadata.storage_data = {each.item: filesystem._StorageInfo(each.file, each.offset, each.nbytes) for each in stored}
    return pickle.dumps(metadata)


def _local(value: Any) -> Any:
    if type(value) in ORDINARY:
        return value
    from torch.distributed._shard.sharded_tensor.api import ShardedTensor

    if isinstance(value, ShardedTensor):
        return {tuple(shard.metadata.shard_offsets): shard.tensor for shard in value.local_shards()}
    return local_of(value) if is_sharded(value) else value


def _frozen_names(obj: Any, values: Mapping[str, Any]) -> frozenset[str]:
    """The names of a module's parameters that do not require gradients, found by their memory: wrappers change names."""
    if not isinstance(obj, torch.nn.Module) or all(parameter.requires_grad for parameter in obj.parameters()):
        return frozenset()
    places: dict[bool, set[int]] = {True: set(), False: {0}}
    for parameter in obj.parameters():
        places[not parameter.requires_grad].update(_places(_local(parameter)))
    found = places[True] - places[False]
    return frozenset(name for name, value in values.items() if not found.isdisjoint(_places(value)))


def _places(value: Any) -> list[int]:
    tensors = list(value.values()) if isinstance(value, dict) else [value]
    return [tensor.data_ptr() for tensor in tensors if isinstance(tensor, torch.Tensor)]


def has_shards(obj: Any) -> bool:
    """Return whether a module or optimizer has a DTensor; False for any other object."""
    if isinstance(obj, torch.nn.Module):
        # `parameters()` takes five times as long, because it removes duplicates.
        own = ((module._parameters.values(), module._buffers.values()) for module in obj.modules())
        return any_sharded(*chain.from_iterable(own))
    if isinstance(obj, torch.optim.Optimizer):
        return any_sharded(*(group["params"] for group in obj.param_groups), one_of_each_type(list(obj.state.values())))
    return False


def holds_shards(tree: Any) -> bool:
    """Return whether there is a DTensor in a tree of dicts, lists and tuples."""
    return any_sharded(values_of(tree))


def sharded_state(obj: Any, model: Any = None) -> dict[str, Any]:
    """This rank's part of the state of a module, or of an optimizer of `model`, by the full parameter names."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    found: Mapping[str, Any]
    if isinstance(obj, torch.optim.Optimizer):
        is_new = not obj.state
        found = get_optimizer_state_dict(_named(obj, model), obj)
        if is_new:
            # PyTorch has made a state to save one, with a step counted that was never taken.
            obj.state.clear()
            found = {**found, "state": {}}
    else:
        found = get_model_state_dict(obj)
        if ranks()[0]:
            found = _without_copies(found, obj)
    return cast("dict[str, Any]", found)


def _without_copies(state: Mapping[str, Any], module: torch.nn.Module) -> dict[str, Any]:
    """The state without buffers and other values that every rank has: those of rank 0 are saved.

    PyTorch would save those of any rank. They can differ: the running statistics of batch normalisation are those of a
    rank's own batches, and DDP continues with those of rank 0.
    """
    parameters = {parameter.data_ptr() for parameter in module.parameters() if not is_sharded(parameter)}
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and (is_sharded(value) or value.data_ptr() in parameters)
    }


def _named(optimizer: torch.optim.Optimizer, model: Any) -> torch.nn.Module:
    if model is None:
        raise ValueError(
            f"{type(optimizer).__name__} is saved by the names of its parameters if it is sharded or there are several "
            "processes: pass its model to save(), too"
        )
    return cast("torch.nn.Module", model)
