"""Read leaves straight into the memory of a model's tensors, so that bytes move once.

- Small leaves that are laid out like their tensors are *staged* (`_stages`): read many at a time, and then copied, which
  cannot fail.
- Large ones are read into the tensor's own memory, all of a source in one call.
- Those for a CUDA device are sent through a ring of pinned buffers.
- All others are read into a buffer of bounded size, and copied (and cast) from there.

A read can fail half-way, and damage is found only when all bytes of a storage have been read. Two ways keep such a load from
leaving half a model:

- If the system keeps the files from being changed meanwhile (a lease), they are read twice: once to verify them, and then,
  from the page cache, into the tensors. This takes no memory, and less time than a backup.
- Otherwise each group of tensors is backed up before it is overwritten, while the group before it is read, and all are
  restored if something fails. If there is not enough memory for that, the files are read twice without a lease.

If the second read fails, the tensors read before stay changed (`Arrivals.changed`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import torch

from statedict.state import (
    Compound,
    Leaf,
    Leasable,
    Read,
    Storage,
    Table,
    arena,
    by_source,
    have_room,
    materialize,
    memory_at,
)
from statedict.tree import JointLoad

from ..tensors import _ring
from ..tensors._copy_pairs import ORDINARY, copy_all
from ..tensors._dtypes import TORCH_DTYPES
from ..tensors._library import TORCH
from ._backup import Backup
from ._stages import Stage, split, stages

# The size of the buffer for tensors that are copied. A single tensor may be larger.
BUFFER = 8 << 20
# A large tensor that is copied is read in pieces of this size.
PIECE = 8 << 20
# The bytes of a group, which is backed up and read together: much more than the threads read at a time, and so few that the
# backup of the first group, during which nothing is read, is short.
GROUP = 64 << 20
# With more files than this, some may be closed between the two reads, which ends their lease.
MOST_LEASES = 32

Arrival = tuple[Any, Leaf | Compound]


class _Step(NamedTuple):
    """Tensors, and the function that overwrites them; `read(verify)` may fail after some were written."""

    tensors: Sequence[Any]
    read: Callable[[bool], None]


class Arrivals:
    """Tensors and the leaves that fill them, cast to the tensors' dtypes; how each is read is decided here.

    `tensors` are filled by the rows of `table`, which have their layout (`are_direct`); `others` are pairs of any kind.

    Attributes:
        changed: after `fill` has raised, the tensors whose elements have changed.
    """

    def __init__(self, tensors: Sequence[Any], table: Table, others: Iterable[Arrival]) -> None:
        self.changed: list[Any] = []
        small, large = split(table.sizes)
        self._stages = list(stages(tensors, table, small))
        self._straight = [(tensors[row], table.leaf(row)) for row in large]
        self._poured: list[tuple[Any, Leaf]] = []
        self._sent: list[tuple[Any, Leaf]] = []
        self._others: list[Arrival] = []
        for tensor, leaf in others:
            run = isinstance(leaf, Leaf) and _is_run(tensor, leaf)
            if run and _ring.reaches(tensor.device) and _ring.is_sendable(leaf):
                self._sent.append((tensor, leaf))  # type: ignore[arg-type]
            elif run and leaf.spec.nbytes > PIECE:  # type: ignore[union-attr]
                self._poured.append((tensor, leaf))  # type: ignore[arg-type]
            else:
                self._others.append((tensor, leaf))

    def fill(self, *, verify: bool, joint: JointLoad | None = None, may_complete: bool = False) -> None:
        """Read the elements of each leaf into its tensor.

        The processes of a `joint` load agree when everything has been read and can still be put back. If there is no memory
        for a backup, they agree before anything is written, when the checksums (`verify`) have been compared; an error of
        the second read is then an error of this process only. `may_complete` as in Rules.
        """
        steps = list(self._steps())
        staged = sum(sum(stage.table.sizes) for stage in self._stages)
        nbytes = staged + sum(tensor.nbytes for step in steps for tensor in step.tensors)
        with ExitStack() as until:
            kept = verify and may_complete and joint is None and nbytes > BUFFER and self._is_kept(until)
            # Without checksums nothing is guaranteed, and a backup would take longer than reading.
            if not kept and (have_room(nbytes) if verify or joint is not None else nbytes <= BUFFER):
                self._fill_together(steps, joint, verify)
                return
            if verify and not kept:
                _verify(self._storages())
            if joint is not None:
                joint.agree()
            steps += [_Step(stage.tensors, partial(_fill_stage, stage)) for stage in self._stages]
            try:
                self._overwrite(steps)
            except BaseException as error:
                if not kept:
                    raise
                # Usually KeyboardInterrupt. The load is completed first, quickly, because the bytes are in the page cache.
                self._overwrite(steps)
                if not isinstance(error, Exception):
                    raise

    def _is_kept(self, until: ExitStack) -> bool:
        """Verify all storages, and return whether they are kept from being changed until the stack is closed."""
        groups = by_source({storage.key: storage for storage in self._storages()}.values())
        held: list[Callable[[], bool]] = []
        for some in groups if len(groups) <= MOST_LEASES else ():
            source = some[0].source
            lease = source.lease(some, until) if isinstance(source, Leasable) else None
            if lease is None:
                return False
            held.append(lease)
        # If a process already waits to change a file, the system may end the lease before a load that starts now is done.
        return bool(held) and all(is_held() for is_held in held)

    def _overwrite(self, steps: Iterable[_Step]) -> None:
        """Read what was verified into the tensors."""
        self.changed = []
        for tensors, read in steps:
            self.changed += tensors
            read(False)
        self.changed = []

    def _steps(self) -> Iterator[_Step]:
        """Return the steps that may fail after they have overwritten tensors."""
        for group in grouped(self._straight, GROUP):
            yield _Step([tensor for tensor, _ in group], partial(_read_straight, group))
        for tensor, leaf in self._poured:
            yield _Step([tensor], partial(pour, tensor, leaf))
        if self._sent:
            yield _Step([tensor for tensor, _ in self._sent], partial(_send, self._sent))
        for batch in grouped(self._others, BUFFER):
            yield _Step([tensor for tensor, _ in batch], partial(_read_others, batch))

    def _fill_together(self, steps: Sequence[_Step], joint: JointLoad | None, verify: bool) -> None:
        """Read all stages, take the steps, and then copy from the stages, which cannot fail; restore all if a read fails."""
        staged = [stage.table.read(verify=verify) for stage in self._stages]
        backup, done = Backup(), list[bool]()
        try:
            _take(steps, backup, verify)
            if joint is not None:
                joint.agree()
            for stage in self._stages:
                torch.autograd.graph.increment_version(list(stage.tensors))
            copies = list(map(Stage.copies, self._stages, staged))
            # A single call, in which Python does not handle signals: KeyboardInterrupt is raised before it, or after it.
            deque(chain(*copies, map(done.append, [True])), maxlen=0)
        except BaseException:
            if not done:
                backup.restore()
            raise

    def _storages(self) -> Iterator[Storage]:
        for arrivals in (self._straight, self._poured, self._sent, self._others):
            for _, leaf in arrivals:
                yield from _storages_of(leaf)
        for stage in self._stages:
            yield from map(stage.table.storage, range(len(stage.table)))


def _take(steps: Sequence[_Step], backup: Backup, verify: bool) -> None:
    """Take the steps; the tensors of the next one are backed up while this thread reads, which may wait for a disk."""
    if steps:
        backup.keep(steps[0].tensors)
    # A thread is started only for a second step.
    with ThreadPoolExecutor(1, "statedict-backup") as ahead:
        for step, following in zip_longest(steps, steps[1:]):
            finish = _begun(ahead, partial(backup.keep, following.tensors)) if following is not None else None
            step.read(verify)
            if finish is not None:
                finish()


def _begun(thread: Executor, act: Callable[[], None]) -> Callable[[], None]:
    """Call `act` in a thread; return the function that waits for it."""
    try:
        return thread.submit(act).result
    except RuntimeError:
        return act  # the system refuses more threads


def _verify(storages: Iterable[Storage]) -> None:
    for some in by_source({storage.key: storage for storage in storages}.values()):
        some[0].source.verify(some)


def _fill_stage(stage: Stage, verify: bool) -> None:
    stage.fill(verify)
    torch.autograd.graph.increment_version(list(stage.tensors))


def _read_straight(group: Sequence[tuple[Any, Leaf]], verify: bool) -> None:
    reads: dict[int, list[Read]] = {}
    for tensor, leaf in group:
        into = memory_at(tensor.data_ptr(), leaf.spec.nbytes, tensor)
        reads.setdefault(id(leaf.storage.source), []).append(Read(leaf.storage, _start(leaf), into))
    for some in reads.values():
        some[0].storage.source.read_into(some, verify=verify)
    torch.autograd.graph.increment_version([tensor for tensor, _ in group])


def pour(tensor: Any, leaf: Leaf, verify: bool) -> None:
    """Read a large leaf in pieces, and copy each into the tensor, which has another dtype or is on a device.

    Both are contiguous, and the leaf's dtype is one of torch's.
    """
    dtype, itemsize = TORCH_DTYPES[leaf.spec.dtype], leaf.spec.dtype.itemsize
    flat = tensor.detach().view(-1)
    step = max(1, PIECE // itemsize)
    block = arena(min(step, len(flat)) * itemsize)
    for start in range(0, len(flat), step):
        count = min(step, len(flat) - start)
        into = block[: count * itemsize]
        leaf.storage.source.read_into([Read(leaf.storage, _start(leaf) + start * itemsize, into)], verify=verify)
        flat[start : start + count].copy_(torch.frombuffer(into, dtype=dtype))


def _send(arrivals: Sequence[tuple[Any, Leaf]], verify: bool) -> None:
    if verify:
        _verify(leaf.storage for _, leaf in arrivals)
    _ring.send([tensor for tensor, _ in arrivals], [leaf for _, leaf in arrivals])


def _read_others(batch: Sequence[Arrival], verify: bool) -> None:
    arrays = materialize([leaf for _, leaf in batch], TORCH, verify=verify)
    copy_all([tensor for tensor, _ in batch], arrays)


def _storages_of(leaf: Leaf | Compound) -> list[Storage]:
    return [part.storage for part in ((leaf,) if isinstance(leaf, Leaf) else leaf.parts.values())]


def _start(leaf: Leaf) -> int:
    return leaf.spec.offset * leaf.spec.dtype.itemsize


def _is_run(tensor: Any, leaf: Leaf) -> bool:
    """Return whether leaf and tensor are both contiguous and have equally many elements."""
    return (
        type(tensor) in ORDINARY
        and leaf.spec.dtype in TORCH_DTYPES
        and leaf.spec.is_contiguous
        and tensor.is_contiguous()
        and tensor.numel() == leaf.spec.numel
        and not (leaf.traits.conj or leaf.traits.neg or tensor.is_conj() or tensor.is_neg())
    )


def grouped(arrivals: Sequence[Any], most: int) -> Iterator[list[Any]]:
    """Return the arrivals in groups of at most `most` bytes of storages, or of one arrival that is larger."""
    group: list[Any] = []
    size = 0
    for tensor, leaf in arrivals:
        nbytes = sum(storage.nbytes for storage in _storages_of(leaf))
        if group and size + nbytes > most:
            yield group
            group, size = [], 0
        group.append((tensor, leaf))
        size += nbytes
    if group:
        yield group
