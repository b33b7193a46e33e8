"""Where the parameters are in the flat vectors of the ranks.

ZeRO 1 and 2 concatenate the parameters of a group, pad the vector to a multiple of twice the number of ranks, and give each
rank an equal part of it; the last rank may leave the padding out of its file. ZeRO 3 pads each parameter to a multiple of
the number of ranks, and each rank concatenates its parts of all parameters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

from statedict.state import Leaf, Parts, Piece, boxes_of_run, contiguous, join_later, join_pieces

from ...errors import FormatError
from ._partitions import Partition, reshaped

Shape = tuple[int, ...]


class FlatRun(NamedTuple):
    """Elements `first … first + numel` of a parameter, which begin at `start` in the flat vector of a rank."""

    rank: int
    start: int
    first: int
    numel: int


class ParameterPlace(NamedTuple):
    """A parameter: its shape, its group, and where the elements are that the files of these ranks have."""

    shape: Shape
    group: int
    runs: list[FlatRun]

    def leaf(self, name: str, vectors: Mapping[int, Leaf], file: str, missing: str) -> Leaf:
        """Return the parameter as a leaf of the whole, from the flat vector of each rank.

        If parts are missing, reading it raises PartError; `missing` says why.
        """
        of = next(iter(vectors.values())).spec.dtype
        for run in self.runs:
            flat = vectors[run.rank].spec
            if run.start + run.numel > flat.numel or flat.dtype is not of:
                raise FormatError(
                    f"expected a {of} vector of at least {run.start + run.numel:,} elements from rank {run.rank}, found "
                    f"{flat.dtype} {list(flat.shape)}",
                    file=file,
                    member=name,
                )
        if sum(run.numel for run in self.runs) != prod(self.shape):
            return Parts(of, self.shape, self._pieces(vectors), missing, where=f"{file}: {name}")
        if not self.runs:
            return join_pieces(of, self.shape, ())
        first = vectors[self.runs[0].rank]
        if len(self.runs) == 1:
            return reshaped(first, self.runs[0].start, self.shape)
        key = ("place", first.storage.key, self.runs[0].start, self.shape)
        return join_later(contiguous(of, self.shape), partial(self._pieces, vectors), key)

    def _pieces(self, vectors: Mapping[int, Leaf]) -> Iterator[Piece]:
        """Return the boxes that are here, as views of the flat vectors."""
        for rank, at, first, numel in self.runs:
            flat = vectors[rank]
            for box in boxes_of_run(self.shape, first, numel):
                yield Piece(box, Leaf(contiguous(flat.spec.dtype, box.sizes, flat.spec.offset + at), flat.storage))
                at += prod(box.sizes)


def places(shapes: Sequence[Mapping[str, Shape]], partitions: Mapping[int, Partition]) -> dict[str, ParameterPlace]:
    """Return the place of each parameter by name, without those of experts, which belong to fewer ranks.

    `shapes`: those of the parameters of each group; `partitions`: by rank. Raises FormatError if these contradict each
    other.
    """
    first = next(iter(partitions.values()))
    _check_alike(partitions)
    if len(shapes) != len(first.weights):
        raise FormatError(
            f"it has {len(first.weights)} groups of weights, but the model states describe {len(shapes)}",
            file=first.file,
        )
    ranks = sorted(partitions)
    found: dict[str, ParameterPlace] = {}
    for group, inside in enumerate(shapes):
        if first.counts[group] == max(first.counts):
            placed = _partitioned if first.stage == 3 else _concatenated
            found.update(placed(group, inside, partitions, ranks))
    return found


def _check_alike(partitions: Mapping[int, Partition]) -> None:
    """Raise FormatError if ranks were not saved by one job."""
    first = next(iter(partitions.values()))
    expected = _signature(first)
    for rank, partition in partitions.items():
        for what, one, other in zip(SIGNATURE, expected, _signature(partition)):
            if one != other:
                raise FormatError(
                    f"it contradicts {first.file}: {what} {other}, there {one}",
                    file=partition.file,
                    hint="the files are of different jobs: remove those of the older one, or fetch the checkpoint again",
                )
        if rank >= max(partition.counts):
            raise FormatError(
                f"it is of rank {rank}, but the checkpoint was saved by {max(partition.counts)} ranks",
                file=partition.file,
            )


SIGNATURE = "its ZeRO stage is", "it was saved by", "its groups have the dtypes", "its optimizer states have the keys"


def _signature(partition: Partition) -> tuple[object, ...]:
    return (
        "3" if partition.stage == 3 else "1 or 2",
        f"{max(partition.counts, default=0)} ranks, of groups {partition.counts}",
        [leaf.spec.dtype.name for leaf in partition.weights],
        [(sorted(state.vectors), sorted(state.others)) for state in partition.states],
    )


def _concatenated(
    group: int, shapes: Mapping[str, Shape], partitions: Mapping[int, Partition], ranks: Sequence[int]
) -> dict[str, ParameterPlace]:
    """Return the places of a group of ZeRO 1 or 2."""
    first = partitions[ranks[0]]
    count = first.counts[group]
    size = _size(group, partitions, count)
    paddings = [0] * len(shapes) if first.paddings is None else first.paddings[group : group + 1][0]
    if len(paddings) != len(shapes):
        raise FormatError(f"group {group} has {len(shapes)} parameters, but {len(paddings)} paddings", file=first.file)
    needed = sum(map(prod, shapes.values())) + sum(paddings)
    if _aligned(needed, 2 * count) != _aligned(size * count, 2 * count):
        raise FormatError(
            f"the parameters of group {group} have {needed:,} elements, but {count} ranks have {size:,} each",
            file=first.file,
        )
    found, at = {}, 0
    for (name, shape), padding in zip(shapes.items(), paddings):
        found[name] = ParameterPlace(shape, group, list(_runs(at, prod(shape), size, ranks)))
        at += prod(shape) + padding
    return found


def _size(group: int, partitions: Mapping[int, Partition], count: int) -> int:
    """Return the number of elements of the vector that each rank had, the last one with its padding."""
    sizes = {rank: each.weights[group].spec.numel for rank, each in partitions.items()}
    states = [leaf.spec.numel for each in partitions.values() for leaf in each.states[group].vectors.values()]
    size = max([*sizes.values(), *states])
    for rank, found in sizes.items():
        if found != size and (rank != count - 1 or found > size):
            raise FormatError(
                f"group {group} has {found:,} elements here, but {size:,} in the files of other ranks",
                file=partitions[rank].file,
            )
    return size


def _runs(at: int, numel: int, size: int, ranks: Sequence[int]) -> list[FlatRun]:
    """Return the runs of elements `at … at + numel` of a vector of which each rank has `size` elements."""
    if not numel:
        return []
    found = []
    for rank in ranks[bisect_left(ranks, at // size) : bisect_left(ranks, -(-(at + numel) // size))]:
        low, high = max(at, rank * size), min(at + numel, (rank + 1) * size)
        found.append(FlatRun(rank, low - rank * size, low - at, high - low))
    return found


def _partitioned(
    group: int, shapes: Mapping[str, Shape], partitions: Mapping[int, Partition], ranks: Sequence[int]
) -> dict[str, ParameterPlace]:
    """Return the places of a sub-group of ZeRO 3."""
    count = partitions[ranks[0]].counts[group]
    found, at = {}, 0
    for name, shape in shapes.items():
        found[name] = ParameterPlace(shape, group, parts_of(prod(shape), count, ranks, at))
        at += -(-prod(shape) // count)
    for rank in ranks:
        size = partitions[rank].weights[group].spec.numel
        if size != at:
            raise FormatError(
                f"group {group} has {size:,} elements here, but the parts of its parameters have {at:,}",
                file=partitions[rank].file,
            )
    return found


def parts_of(numel: int, count: int, ranks: Sequence[int], start: int = 0) -> list[FlatRun]:
    """Return the runs of a parameter that ZeRO 3 divided among `count` ranks; each part begins at `start`."""
    part = -(-numel // count)
    return [FlatRun(rank, start, rank * part, min(part, numel - rank * part)) for rank in ranks if rank * part < numel]


def _aligned(size: int, to: int) -> int:
    return -(-size // to) * to
