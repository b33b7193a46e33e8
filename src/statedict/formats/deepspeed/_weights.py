"""The weights of a model: those that the optimizer has in fp32, buffers, frozen and shared parameters.

The names and values are those that DeepSpeed's `zero_to_fp32.py` gives. It leaves out what the optimizer does not have and
the file does not list: with ZeRO 1, frozen parameters. Here these are added as the file has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from statedict.state import Casts, Leaf, Parts, Piece, boxes_of_run, dtype, join_pieces

from ...errors import FormatError
from ..storages._describe import shown
from ._partitions import on_cpu, vector, view
from ._places import Place, Shape, parts_of

# What is read here from the model states; everything else is a fact beside.
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
    def path(self) -> str:
        return self.paths[min(self.files)]

    def shapes(self) -> list[dict[str, Shape]] | None:
        """Return the shapes of the optimizer's parameters, of each group; None if the file has none."""
        groups = self.first.get("param_shapes")
        if groups is None:
            return None
        if not isinstance(groups, list):
            raise FormatError(f"its param_shapes are {shown(groups)}, not a list", file=self.path)
        return [_shapes(group, self.path) for group in groups]

    def frozen(self, ranks: int) -> dict[str, Leaf]:
        """Return the frozen parameters; with ZeRO 3, the files of `ranks` ranks have parts of them."""
        shapes = self.first.get("frozen_param_shapes")
        found: dict[str, Leaf] = {}
        for name, shape in _shapes(shapes, self.path).items() if shapes is not None else ():
            whole = self._fragment(min(self.files), name)
            if isinstance(whole, Leaf) and whole.spec.shape == shape and not self.is_partitioned:
                found[name] = on_cpu(whole)
                continue
            vectors = {rank: vector(self._fragment(rank, name), self.paths[rank], name) for rank in self.files}
            place = Place(shape, 0, parts_of(prod(shape), ranks, sorted(vectors)))
            found[name] = joined(name, place, vectors, self.path, "the files of other ranks are missing")
        return found

    @property
    def is_partitioned(self) -> bool:
        """Whether each rank has parts of the parameters (ZeRO 3)."""
        return "zero_pp_rank" in self.path.rpartition("/")[2]

    def _fragment(self, rank: int, name: str) -> object:
        fragments = self.files[rank].get("frozen_param_fragments")
        return fragments.get(name) if isinstance(fragments, dict) else None


def weights(states: ModelStates, trained: Mapping[str, Leaf], frozen: Mapping[str, Leaf]) -> OrderedDict[str, Any]:
    """Return the state dict of the model: `trained` parameters, which the optimizer has, and everything else.

    It has the order of the model's own state dict.
    """
    values: dict[str, Any] = {**_buffers(states), **frozen, **trained}
    shared = states.first.get("shared_params")
    for name, owner in shared.items() if isinstance(shared, dict) else ():
        if type(name) is str and type(owner) is str and owner in values:
            values[name] = values[owner]
    if not states.is_partitioned:
        values = {**{name: value for name, value in states.module.items() if name not in values}, **values}
    order = {name: number for number, name in enumerate(states.module)}
    state: OrderedDict[str, Any] = OrderedDict(
        sorted(values.items(), key=lambda item: order.get(item[0], len(order)))
    )
    metadata = getattr(states.module, "_metadata", None)
    if metadata is not None:
        state._metadata = metadata  # type: ignore[attr-defined]
    return state


def _buffers(states: ModelStates) -> dict[str, Any]:
    """Return the buffers, floating-point ones in fp32."""
    names = states.first.get("buffer_names")
    kept = [name for name in names if type(name) is str and name in states.module] if isinstance(names, list) else []
    casts, single = Casts(), dtype("float32")
    values = {name: states.module[name] for name in kept}
    return {
        name: casts.leaf(value, single) if isinstance(value, Leaf) and value.spec.dtype.kind == "float" else value
        for name, value in values.items()
    }


def joined(name: str, place: Place, vectors: Mapping[int, Leaf], path: str, missing: str) -> Leaf:
    """Return a parameter, of which the flat vectors of the ranks have parts, as the leaf of the whole.

    If parts are missing, it is a leaf that raises PartError when they are needed; `missing` says why.
    """
    pieces: list[Piece] = []
    of = next(iter(vectors.values())).spec.dtype
    for run in place.runs:
        flat, at = vectors[run.rank], run.start
        if at + run.count > flat.spec.numel or flat.spec.dtype is not of:
            raise FormatError(
                f"expected a {of} vector of at least {at + run.count:,} elements from rank {run.rank}, found "
                f"{flat.spec.dtype} {list(flat.spec.shape)}",
                file=path,
                member=name,
            )
        for box in boxes_of_run(place.shape, run.first, run.count):
            pieces.append(Piece(box, view(flat, at, box.sizes)))
            at += prod(box.sizes)
    if not place.is_whole:
        return Parts(of, place.shape, pieces, missing, where=f"{path}: {name}")
    if len(pieces) == 1:
        return pieces[0].leaf
    return join_pieces(of, place.shape, pieces)


def _shapes(value: object, file: str) -> dict[str, Shape]:
    """Return shapes by name, from sizes (`torch.Size`, or tuples)."""
    if not isinstance(value, dict):
        raise FormatError(f"the shapes of its parameters are {shown(value)}, not a dict", file=file)
    for name, shape in value.items():
        if type(name) is not str or not isinstance(shape, tuple) or not _are_sizes(shape):
            raise FormatError(f"{shown(shape)} is not a shape", file=file, member=name if type(name) is str else None)
    return {name: tuple(shape) for name, shape in value.items()}


def _are_sizes(shape: Iterable[object]) -> bool:
    return all(type(n) is int and 0 <= n < 1 << 63 for n in shape)
