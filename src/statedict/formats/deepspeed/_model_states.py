"""The files of model states: the module, the shapes of its parameters, frozen parameters, and other values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from statedict.state import Leaf

from ...errors import FormatError
from .._limits import LIMITS
from ..storages._describe import shown
from ..storages._shape import check_addressable
from ._files import EXPERT, LAYER, MODEL, DeepSpeedFiles
from ._partitions import on_cpu, vector
from ._places import ParameterPlace, Shape, parts_of

# The keys of the model states that are read here; every other value becomes a root.
READ = frozenset(
    {
        "module",
        "buffer_names",
        "optimizer",
        "param_shapes",
        "shared_params",
        "frozen_param_shapes",
        "frozen_param_fragments",
    }
)


# In bytes; of float64.
LARGEST_ITEM = 8
RENAMED = {"lr_scheduler": "scheduler"}


class ModelStates(NamedTuple):
    """The content of the files of model states, and the checks of what is in them.

    Attributes:
        files: the content by rank; with ZeRO 1 and 2, there is only one file, of rank 0.
        paths: the path of each file, by rank.
        module: the model's own state dict; with ZeRO 3, the parameters in it are empty.
    """

    files: Mapping[int, Mapping[Any, Any]]
    paths: Mapping[int, str]
    module: Mapping[str, Any]

    @property
    def first(self) -> Mapping[Any, Any]:
        return self.files[min(self.files)]

    @property
    def facts(self) -> dict[str, Any]:
        """Everything in the file that is not read here: the scheduler, numbers of steps, what the user gave.

        A None says that the job had no such object, such as a scheduler.
        """
        return {
            RENAMED.get(key, key): value
            for key, value in self.first.items()
            if type(key) is str and key not in READ and value is not None
        }

    @property
    def path(self) -> str:
        return self.paths[min(self.files)]

    @property
    def has_module(self) -> bool:
        """Whether the module is in this file, and not in those of a pipeline's layers."""
        return self.first.get("module") is not None

    @property
    def mp_world_size(self) -> int:
        """The number of mp_ranks that saved the checkpoint, as far as it is known."""
        count = self.first.get("mp_world_size")
        return count if type(count) is int else 1

    def shapes(self) -> list[dict[str, Shape]] | None:
        """Return the shapes of the optimizer's parameters, of each group; None if the file has none."""
        groups = self.first.get("param_shapes")
        if groups is None:
            return None
        if not isinstance(groups, list):
            raise FormatError(f"its param_shapes are {shown(groups)}, not a list", file=self.path)
        found = [_shapes(group, self.path) for group in groups]
        twice = [name for name, count in Counter(name for group in found for name in group).items() if count > 1]
        if twice:
            raise FormatError("two groups have a parameter of this name", file=self.path, member=twice[0])
        return found

    def frozen(self, ranks: int) -> dict[str, Leaf]:
        """Return the frozen parameters; with ZeRO 3, the files of `ranks` ranks have parts of them."""
        shapes = self.first.get("frozen_param_shapes")
        found: dict[str, Leaf] = {}
        for name, shape in _shapes(shapes, self.path).items() if shapes is not None else ():
            if not self.is_partitioned:
                found[name] = self._frozen(name, shape)
                continue
            vectors = {rank: vector(self._fragment(rank, name), self.paths[rank], name) for rank in self.files}
            place = ParameterPlace(shape, 0, parts_of(prod(shape), ranks, sorted(vectors)))
            found[name] = place.leaf(name, vectors, self.path, "the files of other ranks are missing")
        return found

    def _frozen(self, name: str, shape: Shape) -> Leaf:
        whole = self._fragment(min(self.files), name)
        if not isinstance(whole, Leaf) or whole.spec.shape != shape:
            raise FormatError(
                f"expected a frozen parameter of shape {list(shape)}, found {shown(whole)}", file=self.path, member=name
            )
        return on_cpu(whole)

    @property
    def is_partitioned(self) -> bool:
        """Whether each rank has parts of the parameters (ZeRO 3)."""
        return "zero_pp_rank" in os.path.basename(self.path)

    def _fragment(self, rank: int, name: str) -> object:
        fragments = self.files[rank].get("frozen_param_fragments")
        return fragments.get(name) if isinstance(fragments, dict) else None


def model_states(opened: DeepSpeedFiles, mp: str) -> ModelStates:
    """Return the model states of an mp_rank; the module may be in the files of a pipeline's layers."""
    files, paths = dict[int, Mapping[Any, Any]](), dict[int, str]()
    for match, content in opened.matching(MODEL):
        if match["mp"] == mp:
            rank, path = int(match["rank"] or 0), opened.folder.path_of(match[0])
            if rank in files:
                raise FormatError(f"it and {paths[rank]} are of the same rank", file=path)
            files[rank], paths[rank] = content, path
    experts = {
        name: value for match, each in opened.matching(EXPERT) if match["mp"] == mp for name, value in each.items()
    }
    module = files[min(files)].get("module")
    if module is None:
        module = _layers(opened, mp)
    elif not isinstance(module, dict) or not all(type(name) is str for name in module):
        raise FormatError("its module is not a state dict", file=paths[min(files)])
    elif experts:
        module = {**module, **experts}
    return ModelStates(files, paths, module)


def _layers(opened: DeepSpeedFiles, mp: str) -> dict[str, Any]:
    """Return the state dict of the layers of a pipeline, which all of its stages have here."""
    slices = {match["mp"] for match, _ in opened.matching(LAYER)}
    if len(slices) > 1:
        slices = {mp}
    return {
        f"{int(match['layer'])}.{name}": value
        for match, content in opened.matching(LAYER)
        if match["mp"] in slices
        for name, value in content.items()
    }


def _shapes(value: object, file: str) -> dict[str, Shape]:
    """Return shapes by name, from sizes (`torch.Size`, or tuples)."""
    if not isinstance(value, dict):
        raise FormatError(f"the shapes of its parameters are {shown(value)}, not a dict", file=file)
    for name, shape in value.items():
        if type(name) is not str or not isinstance(shape, tuple) or not _are_sizes(shape):
            raise FormatError(f"{shown(shape)} is not a shape", file=file, member=name if type(name) is str else None)
        check_addressable(shape, LARGEST_ITEM, file=file, member=name)
    return {name: tuple(shape) for name, shape in value.items()}


def _are_sizes(shape: Iterable[object]) -> bool:
    sizes = list(shape)
    return len(sizes) <= LIMITS.dimensions and all(type(n) is int and 0 <= n < 1 << 63 for n in sizes)
