"""One rank's part of a state: items in files of a torch.distributed.checkpoint directory.

PyTorch's planner says which items a state has, and which rank writes an item that several have; the messages between the
ranks are the caller's, so that no collective is needed here. Our own writer writes the items.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from statedict.errors import SaveError
from statedict.files import Part
from statedict.formats.torch_archive import torch_parts
from statedict.state import map_tree

from ._sharded import RankState, ranks

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
    from torch.distributed.checkpoint.planner import SavePlan, WriteItem, WriteItemType

METADATA = ".metadata"
# The parameter groups of an optimizer, and the names of their parameters.
Groups = Sequence[Mapping[str, Any]]
GroupNames = Sequence[list[str]]
_NAMES = ("params", "param_names")


class RankPart:
    """This rank's part of the state of an object, to be written; and of later states of the same form (`fits`).

    Attributes:
        tree: the values: those of the state, or copies of them.
        frozen: the names of the parameters that are not trained.
        copies: the names of values of which every rank has its own.
        made: the parts of a file that were made of a tensor, by its item. They can be written again while the tensor is the
            same, whatever its elements: an asynchronous save overwrites the copies of the save before. To make them takes
            0.3 ms for each tensor, during which the training's thread cannot run.
    """

    def __init__(self, state: RankState, made: dict[Any, tuple[torch.Tensor, list[Part]]] | None = None) -> None:
        from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

        self._form = state.form
        self._rename = state.renaming()
        # It has the live tensors, so it is dropped once there is a plan.
        self._planner: DefaultSavePlanner | None = DefaultSavePlanner()
        live = self._rename(map_tree(state.live, _detached))
        self._planner.set_up_planner(live, is_coordinator=ranks()[0] == 0)
        self._items = frozenset(self._planner.state_dict)
        self._has_groups = isinstance(state.obj, torch.optim.Optimizer)
        self.copies = frozenset(self._rename(dict.fromkeys(state.copies)) if state.copies else ())
        self._plan: SavePlan | None = None
        self.made = {} if made is None else made
        self.set_values(state, state.tree)

    def fits(self, state: RankState) -> bool:
        """Whether a later state has the same items. The caller has found that its tree has the same form."""
        return self._form == state.form

    def set_values(self, state: RankState, tree: Any) -> None:
        """Use the values of a state that fits: `tree` is its tree, or a copy of it."""
        self.tree = tree
        self.frozen = frozenset(self._rename(dict.fromkeys(state.frozen)) if state.frozen else ())

    @property
    def groups(self) -> Groups:
        """The parameter groups of an optimizer, with the full names of their parameters, as plain values."""
        return map_tree(self._rename(self.tree)["param_groups"], _plain) if self._has_groups else ()

    def plan(self) -> SavePlan:
        """The items that this rank has, without their bytes."""
        if self._planner is not None:
            self._plan, self._planner = self._planner.create_local_plan(), None
        assert self._plan is not None
        return self._plan

    def files(self, plan: SavePlan, rank: int, worth: int, names: GroupNames | None = None) -> list[RankFile]:
        """Return the files with these items of this rank: the frozen ones have one of their own from `worth` bytes on.

        `names` are those of the parameters of all ranks, by group, if this rank does not have all of them.
        """
        frozen = [item for item in plan.items if item.index.fqn in self.frozen]
        if sum(item.tensor_storage_size() or 0 for item in frozen) < worth:
            frozen = []
        apart = {item.index for item in frozen}
        rest = [item for item in plan.items if item.index not in apart]
        tree = self._rename(self.tree)
        if names is not None:
            tree["param_groups"] = [
                {**group, **{key: of_group for key in _NAMES if key in group}}
                for group, of_group in zip(tree["param_groups"], names)
            ]
        values = dict(_flat(tree, self._items))
        return [
            self._file(items, values, f"__{rank}_{number}.distcp", is_frozen=items is frozen)
            for number, items in enumerate((rest, frozen))
            if items
        ]

    def _file(self, items: Sequence[WriteItem], values: dict[str, Any], name: str, *, is_frozen: bool) -> RankFile:
        parts: list[Part] = []
        stored = []
        at = 0
        for item in items:
            made = self._made(item, values[item.index.fqn])
            nbytes = sum(part.nbytes for part in made)
            stored.append(Stored(item.index, name, at, nbytes))
            parts += made
            at += nbytes
        return RankFile(name, parts, stored, is_frozen)

    def _made(self, item: WriteItem, value: Any) -> list[Part]:
        # Of a ShardedTensor, the shards by their offsets.
        value = value[item.index.offset] if isinstance(value, dict) else value
        if not isinstance(value, torch.Tensor):
            return torch_parts(value)
        key = (item.index.fqn, item.index.offset)
        tensor, parts = self.made.get(key, (None, []))
        if tensor is not value:
            _, parts = self.made[key] = (value, torch_parts(value))
        return parts


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) and value.requires_grad else value


def _flat(tree: Any, names: Collection[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in a tree by the names of the items that PyTorch's planner has made of them."""
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        name = f"{prefix}{key}"
        if name in names:
            yield name, value
        else:
            yield from _flat(value, names, f"{name}.")


class RankFile(NamedTuple):
    """A file that a rank writes: its parts, the places of the items in it, and whether all of them are frozen."""

    name: str
    parts: list[Part]
    stored: list[Stored]
    is_frozen: bool


class Stored(NamedTuple):
    """The position of an item: `nbytes` bytes at `offset` in a file of the directory."""

    item: MetadataIndex
    file: str
    offset: int
    nbytes: int


def join_plans(plans: Sequence[SavePlan], copies: Sequence[Collection[str]]) -> tuple[list[SavePlan], Metadata]:
    """Return what each rank writes of the items that the ranks have, each of them once, and the metadata of all.

    `copies`: the names of values of which each rank has its own. Those of the first rank that has the name are written.
    Raises SaveError if the items of the ranks do not belong together.
    """
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    wanted: list[SavePlan] = []
    taken: set[str] = set()
    for plan, own in zip(plans, copies):
        dropped = taken.intersection(own)
        # The first step of an item's path is the name in the state: extra state can have many items.
        items = [item for item in plan.items if plan.planner_data[item.index.fqn][0] not in dropped]
        wanted.append(replace(plan, items=items))
        taken.update(own)
    try:
        return DefaultSavePlanner().create_global_plan(wanted)
    except (AssertionError, ValueError) as error:
        raise SaveError(
            _conflict(wanted) or f"the ranks have values that are not parts of one state: {error}"
        ) from error


def join_groups(groups: Sequence[Groups]) -> GroupNames | None:
    """Return the names of the parameters of all ranks, by group; None if all ranks have the same.

    Each stage of a pipeline has its own parameters. Raises SaveError if their groups have different options, or if several
    ranks have a parameter in groups with different options: an optimizer that is resumed could get either.
    """
    first, *others = ([group["params"] for group in of_rank] for of_rank in groups)
    if all(names == first for names in others):
        return None
    options = [[_options(group) for group in of_rank] for of_rank in groups]
    rank = next((rank for rank, of_rank in enumerate(options) if of_rank != options[0]), None)
    if rank is not None:
        raise SaveError(
            f"the optimizers of ranks 0 and {rank} have different parameters, and parameter groups with different options: "
            "give every rank's optimizer the same groups in the same order, if need be with an empty list of parameters"
        )
    joined = [[*dict.fromkeys(name for group in of_ranks for name in group["params"])] for of_ranks in zip(*groups)]
    placed: dict[str, Mapping[str, Any]] = {}
    for names, of_group in zip(joined, options[0]):
        for name in names:
            if placed.setdefault(name, of_group) != of_group:
                raise SaveError(
                    f"the ranks have {name!r} in parameter groups with different options: put it in the same group on "
                    "all ranks"
                )
    return joined


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in _NAMES}


def _conflict(plans: Sequence[SavePlan]) -> str | None:
    """Which value is a tensor on some ranks and not on others, as a message."""
    first: dict[str, tuple[int, WriteItemType]] = {}
    for rank, plan in enumerate(plans):
        for item in plan.items:
            before, kind = first.setdefault(item.index.fqn, (rank, item.type))
            if kind != item.type:
                return (
                    f"{item.index.fqn!r} is of different kinds on ranks {before} and {rank} (a tensor, a sharded tensor, or "
                    "another value): all ranks must save it in the same way"
                )
    return None


def dump_metadata(metadata: Metadata, stored: Sequence[Stored]) -> bytes:
    """Return the content of `.metadata`, with the places of all items."""
    from torch.distributed.checkpoint import filesystem

    if version := getattr(filesystem, "CURRENT_DCP_VERSION", None):  # PyTorch 2.7 writes none
        metadata.version = version
    metadata.storage_data = {each.item: filesystem._StorageInfo(each.file, each.offset, each.nbytes) for each in stored}
    return pickle.dumps(metadata)
