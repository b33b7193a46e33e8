"""Leaves go straight into the memory of a model's tensors: from a file, bytes move once.

A large leaf whose elements lie as the tensor's do is read into the tensor's own memory, all of a source's in one call;
small ones are staged, those for a CUDA device go through a ring of pinned buffers, and the others come by way of a buffer of
bounded size.

Reading may fail half-way, and damage is found only when all bytes of a storage have been read. So what is overwritten is
remembered first, and put back: all of it where there is memory for that. Where there is not, checksums are settled in a pass
of its own before the first byte is written, and then one group of tensors after the other is remembered and read; if the
second read fails, the groups that were read by then stay (`Arrivals.changed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import compress
from typing import Any, NamedTuple

import torch

from statedict.state import Compound, Leaf, Many, Read, Storage, by_source, have_room, materialize, memory_at
from statedict.tree import JointLoad

from ..tensors import _ring
from ..tensors._copy_pairs import ORDINARY, copy_all
from ..tensors._dtypes import TORCH_DTYPES
from ..tensors._library import TORCH
from . import _staging
from ._backup import keep

# What the buffer holds at once. One tensor that is larger is a batch of its own.
BUFFER = 8 << 20
# What is remembered and read together where there is no memory to remember everything.
GROUP = 256 << 20

Arrival = tuple[Any, Leaf | Compound]


class _Step(NamedTuple):
    """Tensors, and what reads them; `read(verify)` may fail when some of them have been written."""

    tensors: Sequence[Any]
    read: Callable[[bool], None]


def _settle(leaves: Iterable[Leaf | Compound]) -> None:
    """Verify all storages that the leaves lie in."""
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
        changed: the tensors that have other elements than before where `fill` has raised.
    """

    def __init__(
        self, tensors: Sequence[Any], leaves: Sequence[Leaf], others: Iterable[Arrival], rows: Many | None = None
    ) -> None:
        """`tensors` are filled by `leaves` as they lie (`_direct`), the others in any way; `rows`: the leaves, where they
        are that."""
        self.changed: list[Any] = []
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

    def fill(self, *, verify: bool, joint: JointLoad | None = None) -> None:
        """Read everything, each tensor's elements into it.

        The processes of a `joint` load agree when everything has been read and can still be put back. If there is no memory
        for a backup, they agree before anything is written, when the checksums (`verify`) have been compared; an error of
        the second read is then an error of this process only.
        """
        steps = list(self._steps())
        overwritten = [tensor for step in steps for tensor in step.tensors]
        staged = sum(sum(stage.sizes) for stage in self._stages)
        nbytes = staged + sum(tensor.nbytes for tensor in overwritten)
        # Without checksums nothing is promised, and a backup would take longer than reading.
        together = have_room(nbytes) if verify or joint is not None else nbytes <= BUFFER
        if together:
            steps = [_Step(overwritten, partial(self._fill_together, steps, joint))]
        else:
            steps += [_Step(stage.tensors, partial(_staging.fill, stage)) for stage in self._stages]
            if verify:
                _settle(self._leaves())
            if joint is not None:
                joint.agree()
        for tensors, read in steps:
            kept = together or (verify and have_room(sum(tensor.nbytes for tensor in tensors)))
            put_back = keep(tensors) if kept else partial(self.changed.extend, tensors)
            try:
                read(verify and together)
            except BaseException:
                put_back()
                raise
            self.changed += tensors
        self.changed = []

    def _steps(self) -> Iterator[_Step]:
        """What overwrites tensors while it may still fail."""
        for group in _grouped(self._straight, GROUP):
            yield _Step([tensor for tensor, _ in group], partial(_read_straight, group))
        for tensor, leaf in self._poured:
            yield _Step([tensor], partial(_staging.pour, tensor, leaf))
        if self._sent:
            yield _Step([tensor for tensor, _ in self._sent], partial(_send, self._sent))
        for batch in _grouped(self._others, BUFFER):
            yield _Step([tensor for tensor, _ in batch], partial(_read_others, batch))

    def _fill_together(self, steps: Sequence[_Step], joint: JointLoad | None, verify: bool) -> None:
        """Read all that is staged, take the steps, and then write what was staged, which cannot fail."""
        staged = [_staging.read(stage, verify) for stage in self._stages]
        for step in steps:
            step.read(verify)
        if joint is not None:
            joint.agree()
        for stage, found in zip(self._stages, staged):
            _staging.write(stage, found)

    def _leaves(self) -> Iterator[Leaf | Compound]:
        for arrivals in (self._straight, self._poured, self._sent, self._others):
            for _, leaf in arrivals:
                yield leaf
        for stage in self._stages:
            yield from stage.leaves


def _read_straight(group: Sequence[tuple[Any, Leaf]], verify: bool) -> None:
    reads: dict[int, list[Read]] = {}
    for tensor, leaf in group:
        into = memory_at(tensor.data_ptr(), leaf.spec.nbytes, tensor)
        reads.setdefault(id(leaf.storage.source), []).append(Read(leaf.storage, _start(leaf), into))
    for some in reads.values():
        some[0].storage.source.read_into(some, verify=verify)
    torch.autograd.graph.increment_version([tensor for tensor, _ in group])


def _send(arrivals: Sequence[tuple[Any, Leaf]], verify: bool) -> None:
    if verify:
        _settle(leaf for _, leaf in arrivals)
    _ring.send([tensor for tensor, _ in arrivals], [leaf for _, leaf in arrivals])


def _read_others(batch: Sequence[Arrival], verify: bool) -> None:
    arrays = materialize([leaf for _, leaf in batch], TORCH, verify=verify)
    copy_all([tensor for tensor, _ in batch], arrays)


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


def _grouped(arrivals: Sequence[Any], most: int) -> Iterator[list[Any]]:
    """The arrivals in groups of at most so many bytes, or of one that is larger."""
    group: list[Any] = []
    size = 0
    for tensor, leaf in arrivals:
        nbytes = nbytes_of(leaf)
        if group and size + nbytes > most:
            yield group
            group, size = [], 0
        group.append((tensor, leaf))
        size += nbytes
    if group:
        yield group
