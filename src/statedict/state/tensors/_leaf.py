"""A leaf describes one tensor of a state, which is read later.

Tied leaves share one Storage. Only the Source of a Storage (an open file, memory) knows where its bytes are and reads them,
in batches. This lets file sources sort, merge and parallelise reads, and this package need not know about files.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from ...errors import BoundsError
from ._dtype import DType

if TYPE_CHECKING:
    from ._table import Table


class Spec(NamedTuple):
    """The layout of a tensor in its storage.

    >>> from statedict.state import contiguous, dtype
    >>> spec = contiguous(dtype("float32"), (2, 3))
    >>> spec.strides, spec.numel, spec.nbytes, spec.is_contiguous
    ((3, 1), 6, 24, True)
    """

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes of the elements."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements are stored one after the other in row-major order. As in PyTorch, strides of dimensions of
        size 1 are ignored."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size != 1:
                if stride != expected and 0 not in self.shape:
                    return False
                expected *= size
        return True

    @property
    def reach(self) -> int:
        """The number of storage elements that the tensor needs: the position of its last element plus one; 0 if empty."""
        if 0 in self.shape:
            return 0
        return self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides)) + 1

    def dense(self) -> Spec:
        """Return the spec of the same tensor, contiguous in its own storage."""
        return contiguous(self.dtype, self.shape)


def contiguous(dtype: DType, shape: Iterable[int], offset: int = 0) -> Spec:
    """Return the Spec of a row-major tensor."""
    shape = tuple(shape)
    return Spec(dtype, shape, contiguous_strides(shape), offset)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return row-major strides in elements, as PyTorch computes them (a dimension of size 0 counts as 1)."""
    if len(shape) == 1:
        return (1,)
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


class Read(NamedTuple):
    """A request to read bytes `start … start + len(into)` of a storage into `into` (writable, contiguous, format `B`)."""

    storage: Storage
    start: int
    into: memoryview


class Source(Protocol):
    """Provides the bytes of storages. This is its whole surface."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        """Fill every destination, in any order, with bytes in native byte order.

        Raises ChecksumError if a storage, even one that is read only in part, does not match its checksum. The
        destinations may already have been written by then.
        """

    def verify(self, storages: Iterable[Storage]) -> None:
        """Raise ChecksumError if a storage does not match its checksum; do nothing for storages without one."""

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        """Return the storage's bytes as memory of this process, or None if they have to be read from a file or a device.

        In-memory storages return a view; computed or decompressed storages return new memory at each call. `writable`
        requests memory that may be written to, or a private mapping of a file.
        """


@runtime_checkable
class Bulk(Protocol):
    """An optional interface of a Source that can read faster if it chooses the memory layout itself."""

    def fresh(
        self, storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int], *, verify: bool = True
    ) -> tuple[memoryview, list[int]] | None:
        """Return bytes `start … start + size` of each storage in one block of new writable memory, and their offsets in it.

        Each offset is a multiple of 64; there may be gaps, as in the file. Returns None if `read_into` must be used.
        `verify` as in `read_into`.
        """

    def in_pieces(self, storage: Storage) -> bool:
        """Whether a part of the storage can be read without the rest, because it is not compressed."""


@runtime_checkable
class Streaming(Protocol):
    """An optional interface of a Source that can return bytes in pieces, of which only a few are in memory at a time."""

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        """Return bytes `start … stop` of a storage, in order, in pieces that are not modified later.

        Raises ChecksumError as `read_into` does, at the latest after the last piece.
        """


@runtime_checkable
class Leasable(Protocol):
    """An optional interface of a Source that can keep its bytes from changing, so that they are read twice."""

    def lease(self, storages: Sequence[Storage], until: ExitStack) -> Callable[[], bool] | None:
        """Verify the storages, reading each byte, and keep their bytes from changing until the stack is closed.

        Returns a function that returns False once a process waits to change them; None if they cannot be kept, or if reading
        them again takes more than reading bytes. Raises ChecksumError as `read_into` does.
        """


@runtime_checkable
class Shareable(Protocol):
    """An optional interface of a Source whose checksums several processes, which read the same file, verify together.

    Each process computes the CRC-32 of some ranges of a storage; the code that combines them calls `compare`.
    """

    def shareable(self, storage: Storage) -> bool:
        """Whether the storage has something to verify and its parts can be verified without the rest."""

    def share(self, storages: Iterable[Storage], *, arriving: bool) -> None:
        """From now on, read parts of these storages without verifying the whole.

        `arriving`: compute the CRC-32 of each part as it is read, for `sums`. Partner of `unshare`.
        """

    def unshare(self, storages: Iterable[Storage]) -> None:
        """Verify these storages by themselves again, unless `compare` has accepted them."""

    def sums(self, ranges: Sequence[tuple[Storage, int, int]]) -> list[int]:
        """Return the CRC-32 of bytes `start … stop` of each storage, as they arrived or, if they did not, read now.

        Raises ChecksumError if a tied tensor has other bytes in this range.
        """

    def compare(self, storages: Sequence[Storage], found: Sequence[int]) -> None:
        """Raise ChecksumError if the checksum of a storage is not the CRC-32 `found` of its bytes."""


class Storage:
    """The bytes of one or more leaves.

    Attributes:
        source: reads the bytes.
        key: equal keys mean the same bytes, across all storages of one process.
        nbytes: the number of bytes.
        where: what `source` needs to find the bytes; private to the source.
        location: the device they were saved from, in PyTorch's form (`"cpu"`, `"cuda:0"`).
    """

    __slots__ = ("key", "location", "nbytes", "source", "where")

    def __init__(self, source: Source, key: Hashable, nbytes: int, where: Any = None, location: str = "cpu") -> None:
        self.source = source
        self.key = key
        self.nbytes = nbytes
        self.where = where
        self.location = location

    @property
    def is_live(self) -> bool:
        """Whether the bytes are in the memory of an array of this process."""
        return isinstance(self.key, tuple) and self.key[0] == "memory"

    def __repr__(self) -> str:
        return f"Storage({self.key!r}, {self.nbytes} bytes, {self.location})"


def check_bounds(reads: Iterable[tuple[Storage, int, int]]) -> None:
    """Raise BoundsError unless bytes `start … start + nbytes` lie within the storage, for each (storage, start, nbytes).

    Every Source calls this before it reads, so that an invalid leaf cannot expose other bytes.
    """
    for storage, start, nbytes in reads:
        if nbytes and not 0 <= start <= start + nbytes <= storage.nbytes:
            raise _beyond(
                storage,
                f"cannot read {nbytes:,} bytes at byte {start:,} of a storage of {storage.nbytes:,} bytes",
            )


def check_reach(spec: Spec, storage: Storage) -> None:
    """Raise BoundsError unless all elements of `spec` lie within the storage."""
    of, shape, strides, last = spec
    for size, stride in zip(shape, strides):
        if not size:
            return
        last += (size - 1) * stride
    if (last + 1) * of.itemsize > storage.nbytes or last < spec.offset or spec.offset < 0:
        raise _beyond(
            storage,
            f"a {of} tensor of shape {list(shape)}, strides {list(strides)} and offset {spec.offset:,} needs "
            f"{(last + 1) * of.itemsize:,} bytes of a storage of {storage.nbytes:,} bytes",
        )


def _beyond(storage: Storage, problem: str) -> BoundsError:
    file, member = getattr(storage.source, "name", None), getattr(storage.where, "member", None)
    return BoundsError(problem, file=file, member=member)


class Traits(NamedTuple):
    """Properties of a saved tensor besides its elements; `PLAIN` for an ordinary tensor.

    Attributes:
        parameter: whether it is a Parameter.
        requires_grad: PyTorch's flag.
        conj, neg: PyTorch's lazy conjugate and negative bits: the elements are those of the storage, conjugated or negated.
        subclass: `module.name` of the tensor subclass, or None.
        attributes: Python attributes saved with it.
    """

    parameter: bool = False
    requires_grad: bool = False
    conj: bool = False
    neg: bool = False
    subclass: str | None = None
    attributes: Mapping[str, object] | None = None


PLAIN = Traits()


class Leaf:
    """One strided tensor: its Spec, its Storage, and its other properties (Traits).

    Its elements lie within its storage: creating or changing a leaf raises BoundsError if they do not.

    A leaf from a table of tensors is row `row` of `table`, and its other attributes are looked up on first use; for other
    leaves both are None.
    """

    __slots__ = ("row", "spec", "storage", "table", "traits")

    row: int | None
    table: Table | None

    def __init__(self, spec: Spec, storage: Storage, traits: Traits = PLAIN) -> None:
        check_reach(spec, storage)
        self.spec = spec
        self.storage = storage
        self.traits = traits

    @classmethod
    def unchecked(cls, spec: Spec, storage: Storage, traits: Traits = PLAIN) -> Leaf:
        """Create a leaf without checking its bounds: they were just checked, or it is an in-memory tensor, whose memory may
        have been released since it was created."""
        leaf = cls.__new__(cls)
        leaf.spec = spec
        leaf.storage = storage
        leaf.traits = traits
        return leaf

    if not TYPE_CHECKING:  # a type checker would accept any attribute name

        def __getattr__(self, name: str) -> Any:
            if name == "storage":
                found = self.storage = self.table.storage(self.row)
                return found
            if name not in ("spec", "traits"):
                if name in ("row", "table"):
                    return None
                raise AttributeError(f"a Leaf has no attribute {name!r}")
            self.spec, self.traits, _ = self.table.kinds[self.table.which[self.row]]
            return getattr(self, name)

    @property
    def nbytes(self) -> int:
        """The number of bytes of the elements."""
        return self.spec.nbytes if self.table is None or self.row is None else self.table.sizes[self.row]

    @property
    def identity(self) -> Hashable:
        """A key for the elements: leaves with equal keys are the same elements of one storage."""
        return self.storage.key, self.spec, self.traits.conj, self.traits.neg

    def become(self, spec: Spec, storage: Storage, traits: Traits) -> None:
        """Change this leaf into another tensor, for readers of formats that describe a tensor only later in the file."""
        check_reach(spec, storage)
        self.row = self.table = None
        self.spec, self.storage, self.traits = spec, storage, traits

    def __repr__(self) -> str:
        return f"Leaf({self.spec.dtype}, {list(self.spec.shape)}, {self.storage!r})"
