"""States of several processes: what each rank has of a model or optimizer, under the names that all ranks use.

It is saved as a directory of torch.distributed.checkpoint (`.metadata` and `*.distcp`) with the full parameter names,
independently of wrappers (DDP, FSDP2) and sharding. `load_state_dict` reads it like any other file, on any number of ranks.

The caller's engine reads the state, as for one process. Only modules with flat parameters (FSDP1) are read by PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, cast
from weakref import ref

import torch
import torch.distributed as dist

from statedict.state import StateDict, map_tree, one_of_each_type, raw_values

from .snapshots._copy_tree import values_of
from .tensors._dtensor import any_sharded, is_sharded

# Reads the state of an object; the second argument is the model of an optimizer.
Read = Callable[[Any, Any], Any]
_SHARDING = attrgetter("device_mesh", "placements", "shape", "dtype")
_REQUIRES_GRAD = attrgetter("requires_grad")


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) if torch.distributed is not initialised.

    >>> ranks()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def has_shards(obj: Any) -> bool:
    """Return whether a module or optimizer has a DTensor; False for any other object."""
    if isinstance(obj, torch.nn.Module):
        # `parameters()` takes five times as long, because it removes duplicates.
        own = ((module._parameters.values(), module._buffers.values()) for module in obj.modules())
        return any_sharded(*chain.from_iterable(own))
    if isinstance(obj, torch.optim.Optimizer):
        # Most states are dicts of tensors; a walk over many dicts takes ten times as long.
        states = [value for each in obj.state.values() for value in (each.values() if type(each) is dict else (each,))]
        return any_sharded(*(group["params"] for group in obj.param_groups), one_of_each_type(states))
    return False


def holds_shards(tree: Any) -> bool:
    """Return whether there is a DTensor in a tree of dicts, lists and tuples."""
    return any_sharded(values_of(tree))


class RankState(NamedTuple):
    """This rank's part of the state of a module, or of an optimizer of `model`.

    Attributes:
        live: the state as it was read: by the names, or numbers, that the object has for its parameters.
        tree: the same with the local tensor of each DTensor, and the local shards of each ShardedTensor, by their offsets.
        shardings: what is missing there: the mesh, placements, shape and dtype of each of them.
        frozen: the names of the parameters that are not trained.
        copies: the names of values of which every rank has its own (see `_copies`).
        is_renamed: whether the names are the full ones already.
    """

    obj: Any
    model: Any
    live: Mapping[Any, Any]
    tree: Mapping[Any, Any]
    shardings: list[Any]
    frozen: frozenset[str]
    copies: frozenset[str]
    is_renamed: bool

    @property
    def form(self) -> object:
        """A key for the items of the state: they depend on it and on the form of `tree`. It keeps no object alive."""
        groups = self.tree["param_groups"] if isinstance(self.obj, torch.optim.Optimizer) else ()
        named = [(group["params"], group.get("param_names")) for group in groups]
        return ref(self.obj), None if self.model is None else ref(self.model), self.shardings, named, self.copies

    def renaming(self) -> Callable[[Any], dict[str, Any]]:
        """Return a function that gives a tree of this form the full parameter names, without those of wrappers."""
        if self.is_renamed:
            return dict
        if not isinstance(self.obj, torch.optim.Optimizer):
            return partial(_renamed, names=_full_names(self.obj, self.live))
        groups = self.live["param_groups"]
        of_model = _full_names(self.model, dict(self.model.named_parameters(remove_duplicate=False)))
        names = {
            number: of_model.get(name, name)
            for group in groups
            for number, name in zip(group["params"], group.get("param_names", ()))
        }
        return partial(_renamed_optimizer, names=names, keeps="param_names" in self.obj.param_groups[0])


def rank_state(obj: Any, model: Any, read: Read) -> RankState:
    """Return this rank's part of the state of a module, or of an optimizer of `model`. `read` reads whole states."""
    if isinstance(obj, torch.optim.Optimizer) and model is None:
        raise ValueError(
            f"{type(obj).__name__} is saved by the names of its parameters if it is sharded or there are several "
            "processes: pass its model to save(), too"
        )
    flat = _of_flat_parameters(obj, model)
    live = read(obj, model) if flat is None else flat
    if isinstance(live, StateDict):
        live = raw_values(live)
    frozen = copies = frozenset[str]()
    if not isinstance(obj, torch.nn.Module):
        tree, shardings = _local(live)
    elif {torch.nn.Parameter}.issuperset(map(type, live.values())):
        # The usual case, in which each loop costs as much as the copies of small tensors.
        tree, shardings = live, []
        frozen = frozenset() if all(map(_REQUIRES_GRAD, live.values())) else _frozen_names(obj, tree)
    else:
        tree, shardings = _local(live)
        frozen, copies = _frozen_names(obj, tree), _copies(live, obj)
    return RankState(obj, model, live, tree, shardings, frozen, copies, flat is not None)


def _of_flat_parameters(obj: Any, model: Any) -> dict[str, Any] | None:
    """The state if the module has flat parameters (FSDP1), which PyTorch takes apart; else None."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    module = obj if model is None else model
    if kind is None or not any(issubclass(each, kind) for each in set(map(type, module.modules()))):
        return None
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    if isinstance(obj, torch.nn.Module):
        return cast("dict[str, Any]", get_model_state_dict(obj))
    is_new = not obj.state
    found = get_optimizer_state_dict(module, obj)
    if is_new:
        # PyTorch has made a state to save one, with a step counted that was never taken.
        obj.state.clear()
    return {**found, "state": {}} if is_new else cast("dict[str, Any]", found)


def _copies(state: Mapping[str, Any], module: torch.nn.Module) -> frozenset[str]:
    """The names of buffers and other values of which every rank has its own: those of the first rank are saved.

    PyTorch would save those of any rank. They can differ: the running statistics of batch normalisation are those of a
    rank's own batches, and DDP continues with those of rank 0.
    """
    parameters = {parameter.data_ptr() for parameter in module.parameters() if not is_sharded(parameter)}
    return frozenset(
        name
        for name, value in state.items()
        if not (isinstance(value, torch.Tensor) and (_is_sharded(value) or value.data_ptr() in parameters))
    )


def _local(live: Any) -> tuple[Any, list[Any]]:
    """Return the tree of a RankState, and its shardings."""
    # Each type is looked at once: in a loop, that takes longer than the rest.
    kinds = {type(value): is_sharded(value) for value in one_of_each_type(live) if _is_sharded(value)}
    if not kinds:
        return live, []
    shardings: list[Any] = []
    # Tied tensors stay one object, so that they are copied once.
    seen: dict[Any, torch.Tensor] = {}

    def local(value: Any) -> Any:
        if type(value) not in kinds:
            return value
        if not kinds[type(value)]:
            shardings.append(value.metadata())
            return {tuple(shard.metadata.shard_offsets): shard.tensor for shard in value.local_shards()}
        shardings.append(_SHARDING(value))
        here = value.to_local()
        key = (here.data_ptr(), here.dtype, here.shape, here.stride()) if here.numel() else id(value)
        return seen.setdefault(key, here)

    with torch.no_grad():
        return map_tree(live, local), shardings


def _is_sharded(value: object) -> bool:
    """Whether a value is a DTensor, or a ShardedTensor (of FSDP1)."""
    if is_sharded(value):
        return True
    kind = getattr(sys.modules.get("torch.distributed._shard.sharded_tensor.api"), "ShardedTensor", None)
    return kind is not None and isinstance(value, kind)


def _frozen_names(module: torch.nn.Module, tree: Mapping[str, Any]) -> frozenset[str]:
    """The names of a module's parameters that do not require gradients, found by their memory: wrappers change names."""
    if all(map(_REQUIRES_GRAD, module.parameters())):
        return frozenset()
    places: dict[bool, set[int]] = {True: set(), False: {0}}
    for parameter in module.parameters():
        places[not parameter.requires_grad].update(_places(_local(parameter)[0]))
    found = places[True] - places[False]
    return frozenset(name for name, value in tree.items() if not found.isdisjoint(_places(value)))


def _places(value: Any) -> list[int]:
    tensors = list(value.values()) if isinstance(value, dict) else [value]
    return [tensor.data_ptr() for tensor in tensors if isinstance(tensor, torch.Tensor)]


def _full_names(module: torch.nn.Module, names: Iterable[str]) -> dict[Any, str]:
    """Return the names in a module's state without those of wrappers, as PyTorch finds them."""
    return {name: _full_name(module, name) for name in names}


def _full_name(module: torch.nn.Module, name: str) -> str:
    from torch.distributed.checkpoint.state_dict import _get_fqns

    # A hook can give a value a name at which the module has nothing. PyTorch refuses that. Here the longest part of the
    # name that is a module counts; each module has an attribute `training`, so PyTorch finds the full name of that.
    with suppress(AttributeError, AssertionError):
        return next(iter(_get_fqns(module, name)))
    steps = name.split(".")
    for end in range(len(steps) - 1, 0, -1):
        with suppress(AttributeError, AssertionError):
            attribute = next(iter(_get_fqns(module, ".".join([*steps[:end], "training"]))))
            return attribute.removesuffix("training") + ".".join(steps[end:])
    return name


def _renamed(state: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in state.items()}


def _renamed_optimizer(state: Mapping[str, Any], names: Mapping[Any, str], *, keeps: bool) -> dict[str, Any]:
    """Return an optimizer's state with parameter names; `keeps`: also as `param_names`, as it was built with names."""
    groups = []
    for group in state["param_groups"]:
        params = [names.get(number, number) for number in group["params"]]
        kept = {key: value for key, value in group.items() if key != "param_names"}
        groups.append({**kept, "params": params, **({"param_names": params} if keeps else {})})
    return {"state": {names.get(key, key): value for key, value in state["state"].items()}, "param_groups": groups}
