"""Leaves go straight into the memory of a model's tensors: from a file, bytes move once.

A large leaf whose elements lie as the tensor's do is read into the tensor's own memory, all of a source's in one call;
small ones are staged, those for a CUDA device go through a ring of pinned buffers, and the others come by way of a buffer of
bounded size. Checksums are settled before the first byte
lands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import torch

from statedict.state import Compound, Leaf, Many, Read, Storage, by_source, materialize, memory_at

from . import _ring, _staging
from ._dtypes import TORCH_DTYPES
from ._library import TORCH
from ._pairs import ORDINARY, copy_all

# What the buffer holds at once. One tensor that is larger is a batch of its own.
BUFFER = 8 << 20

Arrival = tuple[Any, Leaf | Compound]


def verify(leaves: Iterable[Leaf | Compound], rows: Many | None = None) -> None:
    """Settle the checksums of all that the leaves lie in; `rows`: the leaves, where all of them are that."""
    if rows is not None:
        rows.table.verify(rows.numbers)
        return
    storages: dict[Any, Storage] = {}
    for leaf in leaves:
        if type(leaf) is Leaf:
            storages[leaf.storage.key] = leaf.storage
        else:
            parts = (leaf,) if isinstance(leaf, Leaf) else leaf.parts.values()
            storages |= {part.storage.key: part.storage for part in parts}
    for some in by_source(storages.values()):
        some[0].source.verify(some)


class Arrivals:
    """Tensors and the leaves that are to fill them, cast to the tensors' dtypes: how each will come is decided here.

    Attributes:
        exposed: the tensors that will have been written when a read can still fail: who wants them back must keep them.
    """

    def __init__(
        self, tensors: Sequence[Any], leaves: Sequence[Leaf], others: Iterable[Arrival], rows: Many | None = None
    ) -> None:
        """`tensors` are filled by `leaves` as they lie (`_direct`), the others in any way; `rows`: the leaves, where they
        are that."""
        sizes = nbytes_of_each(leaves) if rows is None else rows.sizes()
        columns = tensors, leaves, sizes
        self._straight: list[tuple[Any, Leaf]] = []
        if sizes and min(sizes) > 0 and max(sizes) < _staging.SMALL:
            self._stages = _staging.stages(*columns, rows)
        else:
            small = [0 < nbytes < _staging.SMALL for nbytes in sizes]
            self._straight = [(tensor, leaf) for tensor, leaf, nbytes in zip(*columns) if nbytes >= _staging.SMALL]
            some = None if rows is None else Many(rows.table, list(compress(rows.numbers, small)))
            chosen = [list(compress(each, small)) for each in columns]
            self._stages = _staging.stages(chosen[0], chosen[1], chosen[2], some)
        self._poured: list[tuple[Any, Leaf]] = []
        self._sent: list[tuple[Any, Leaf]] = []
        self._others: list[Arrival] = []
        for tensor, leaf in others:
            if (
                isinstance(leaf, Leaf)
                and _ring.reaches(tensor.device)
                and _is_run(tensor, leaf)
                and _ring.is_sendable(leaf)
            ):
                self._sent.append((tensor, leaf))
            elif isinstance(leaf, Leaf) and leaf.spec.nbytes > _staging.STAGE and _is_run(tensor, leaf):
                self._poured.append((tensor, leaf))
            else:
                self._others.append((tensor, leaf))
        # The last stage is read before any of it is written.
        staged = [pair for stage in self._stages[:-1] for pair in zip(stage.tensors, stage.leaves)]
        self.exposed: list[Arrival] = [*self._straight, *self._poured, *self._sent, *self._others, *staged]

    def fill(self) -> None:
        """Read everything, each tensor's elements into it."""
        _read(
            [
                Read(leaf.storage, _start(leaf), memory_at(tensor.data_ptr(), leaf.spec.nbytes, tensor))
                for tensor, leaf in self._straight
            ]
        )
        torch.autograd.graph.increment_version([tensor for tensor, _ in self._straight])
        for tensor, leaf in self._poured:
            _staging.pour(tensor, leaf, _read)
        _ring.send([tensor for tensor, _ in self._sent], [leaf for _, leaf in self._sent])
        for batch in _batches(self._others):
            arrays = materialize([leaf for _, leaf in batch], TORCH, verify=False)
            copy_all([tensor for tensor, _ in batch], arrays)
        for stage in self._stages:
            _staging.fill(stage)


def nbytes_of_each(leaves: Sequence[Leaf]) -> list[int]:
    """Bytes that each leaf shows. Leaves of one shape share their Spec, which is asked once."""
    specs = [leaf.spec for leaf in leaves]
    known = {number: spec.nbytes for number, spec in {id(spec): spec for spec in specs}.items()}
    return [known[id(spec)] for spec in specs]


def nbytes_of(leaf: Leaf | Compound) -> int:
    """Bytes of the storages that the leaf lies in."""
    parts = (leaf,) if isinstance(leaf, Leaf) else leaf.parts.values()
    return sum(part.storage.nbytes for part in parts)


def _start(leaf: Leaf) -> int:
    return leaf.spec.offset * leaf.spec.dtype.itemsize


def _read(reads: Sequence[Read]) -> None:
    groups: dict[int, list[Read]] = {}
    for read in reads:
        groups.setdefault(id(read.storage.source), []).append(read)
    for some in groups.values():
        some[0].storage.source.read_into(some)


def _is_run(tensor: Any, leaf: Leaf) -> bool:
    """Whether leaf and tensor are two runs of as many elements."""
    return (
        type(tensor) in ORDINARY
        and leaf.spec.dtype in TORCH_DTYPES
        and leaf.spec.is_contiguous
        and tensor.is_contiguous()
        and tensor.numel() == leaf.spec.numel
        and not (leaf.traits.conj or leaf.traits.neg or tensor.is_conj() or tensor.is_neg())
    )


def _batches(arrivals: Sequence[Arrival]) -> Iterable[list[Arrival]]:
    batch: list[Arrival] = []
    size = 0
    for tensor, leaf in arrivals:
        nbytes = nbytes_of(leaf)
        if batch and size + nbytes > BUFFER:
            yield batch
            batch, size = [], 0
        batch.append((tensor, leaf))
        size += nbytes
    if batch:
        yield batch
