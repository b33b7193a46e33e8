"""A leaf is one tensor of a state, known now and read later.

Leaves that are tied share one Storage. A Storage says where its bytes lie only to its Source (an open file, live memory),
and only the Source reads them, in batches: that is how the disk edge can sort, merge and spread reads over threads
without the middle knowing what a file is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from ..errors import BoundsError
from ._spec import Spec

if TYPE_CHECKING:
    from ._rows import Rows


class Read(NamedTuple):
    """Bytes `start … start + len(into)` of a storage, wanted in `into` (writable, contiguous, format `B`)."""

    storage: Storage
    start: int
    into: memoryview


class Source(Protocol):
    """Where the bytes of storages lie. This is its whole surface."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        """Fill every destination, in whatever order is quickest. Bytes arrive in native byte order.

        Reading is where damage is found: ChecksumError is raised if the bytes of a storage, also of one that is read in
        part, are not those that were written. The destinations may have been written by then.
        """

    def verify(self, storages: Iterable[Storage]) -> None:
        """Raise ChecksumError if a storage's bytes are not those that were written; do nothing if that is unknown."""

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        """The storage's bytes in this process's memory, or None if they have to be read from a file or a device.

        Live memory is viewed; what is computed, inflated or put together is made anew at each call. `writable` asks for
        memory that may be written to, and for a private mapping of a file.
        """


@runtime_checkable
class Bulk(Protocol):
    """What a Source may be besides: one that reads more quickly where it chooses where the bytes go."""

    def fresh(
        self, storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int], *, verify: bool = True
    ) -> tuple[memoryview, list[int]] | None:
        """Bytes `start … start + size` of each storage, in one block of fresh writable memory, and where in it each begins.

        Each place is a multiple of 64; there may be gaps as there are in the file. None where `read_into` must be asked.
        `verify` as in `read_into`.
        """

    def in_pieces(self, storage: Storage) -> bool:
        """Whether reading a part of the storage costs no more than that part: it does not have to be inflated first."""


@runtime_checkable
class Streaming(Protocol):
    """What a Source may be besides: one that gives bytes in pieces, a few of which are in memory at a time."""

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        """Bytes `start … stop` of a storage, in order, in pieces that stay as they are.

        Raises ChecksumError as `read_into` does, at the end at the latest.
        """


class Storage:
    """Bytes that one or several leaves show.

    Attributes:
        source: who can read them.
        key: equal keys mean the same bytes, across all storages of one process.
        nbytes: how many.
        where: what `source` needs to find them; nobody else looks at it.
        location: the device they were saved from, as PyTorch tags it (`"cpu"`, `"cuda:0"`).
    """

    __slots__ = ("key", "location", "nbytes", "source", "where")

    def __init__(self, source: Source, key: Hashable, nbytes: int, where: Any = None, location: str = "cpu") -> None:
        self.source = source
        self.key = key
        self.nbytes = nbytes
        self.where = where
        self.location = location

    def __repr__(self) -> str:
        return f"Storage({self.key!r}, {self.nbytes} bytes, {self.location})"


def check_bounds(reads: Iterable[tuple[Storage, int, int]]) -> None:
    """Raise BoundsError unless bytes `start … start + nbytes` lie within the storage, for each (storage, start, nbytes).

    Every Source calls this before it reads, so that a wrong leaf can never show bytes that are not its own.
    """
    for storage, start, nbytes in reads:
        if nbytes and not 0 <= start <= start + nbytes <= storage.nbytes:
            raise _beyond(
                storage,
                f"{nbytes:,} bytes from byte {start:,} on are wanted of a storage of {storage.nbytes:,} bytes",
            )


def check_reach(spec: Spec, storage: Storage) -> None:
    """Raise BoundsError unless all elements that `spec` shows lie within the storage."""
    of, shape, strides, last = spec
    for size, stride in zip(shape, strides):
        if not size:
            return
        last += (size - 1) * stride
    if (last + 1) * of.itemsize > storage.nbytes or last < spec.offset or spec.offset < 0:
        raise _beyond(
            storage,
            f"a {of} tensor of shape {list(shape)}, strides {list(strides)} and offset {spec.offset:,} reaches "
            f"{(last + 1) * of.itemsize:,} bytes into a storage of {storage.nbytes:,}",
        )


def _beyond(storage: Storage, problem: str) -> BoundsError:
    file, member = getattr(storage.source, "name", None), getattr(storage.where, "member", None)
    return BoundsError(problem, file=file, member=member)


class Traits(NamedTuple):
    """What a saved tensor was beyond its elements. `PLAIN` where nothing is to be said.

    Attributes:
        parameter: it was a Parameter.
        requires_grad: PyTorch's flag.
        conj, neg: PyTorch's lazy conjugate and negative bits: the elements shown are those of the storage, conjugated or
            negated.
        subclass: `module.name` of the tensor subclass that it was, if any.
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
    """One strided tensor: its Spec, the Storage that it lies in, and what it was (Traits).

    Its elements lie within its storage: what makes or changes a leaf raises BoundsError where they do not.

    A leaf of many that were read together is row `row` of `rows`, and learns the rest when somebody asks for it; of any
    other leaf both are None.
    """

    __slots__ = ("row", "rows", "spec", "storage", "traits")

    row: int | None
    rows: Rows | None

    def __init__(self, spec: Spec, storage: Storage, traits: Traits = PLAIN) -> None:
        check_reach(spec, storage)
        self.spec = spec
        self.storage = storage
        self.traits = traits

    @classmethod
    def unchecked(cls, spec: Spec, storage: Storage, traits: Traits = PLAIN) -> Leaf:
        """A leaf whose reach was checked just now; or of a live tensor, which may have lost its memory since it was made."""
        leaf = cls.__new__(cls)
        leaf.spec = spec
        leaf.storage = storage
        leaf.traits = traits
        return leaf

    if not TYPE_CHECKING:  # to which any name would be an attribute

        def __getattr__(self, name: str) -> Any:
            if name == "storage":
                found = self.storage = self.rows.storage(self.row)
                return found
            if name not in ("spec", "traits"):
                if name in ("row", "rows"):
                    return None
                raise AttributeError(f"a Leaf has no attribute {name!r}")
            self.spec, self.traits, _ = self.rows.kinds[self.rows.of[self.row]]
            return getattr(self, name)

    @property
    def shown(self) -> Hashable:
        """What tells the elements: leaves of which it is equal show the same ones."""
        return self.storage.key, self.spec, self.traits.conj, self.traits.neg

    def become(self, spec: Spec, storage: Storage, traits: Traits) -> None:
        """Be another tensor from now on: for readers of files that tell later what a tensor is."""
        check_reach(spec, storage)
        self.row = self.rows = None
        self.spec, self.storage, self.traits = spec, storage, traits

    def __repr__(self) -> str:
        return f"Leaf({self.spec.dtype}, {list(self.spec.shape)}, {self.storage!r})"
