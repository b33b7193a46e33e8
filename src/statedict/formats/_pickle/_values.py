"""The values that `parse` and `emit` exchange with their callers.

None of them belongs to a tensor library: `torch.Size([2])` in a file is `Size((2,))` here, `torch.float32` is a DType
of `statedict.state`, `torch.device("cuda:0")` is `TorchConstant("device", "cuda:0")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from statedict.state import DType, Leaf, RowKind, Spec, Storage, contiguous
from statedict.state import dtype as find_dtype

from ...errors import printable

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]

Risk = Literal["safe", "unknown", "dangerous"]
Kind = Literal["device", "layout", "memory_format", "qscheme"]


class StorageId(NamedTuple):
    """A storage as identified in the pickle, with the types of all fields checked, and no negative numbers.

    Attributes:
        dtype: the type of its elements; None for an untyped storage, whose elements are bytes.
        key: identifies the storage in the file.
        location: the device it was saved from.
        numel: the number of elements that it claims, to be checked against the bytes in the file.
        view: legacy files only: (key, offset, numel), the part of the storage that is used, in elements.
    """

    dtype: DType | None
    key: str
    location: str
    numel: int
    view: tuple[str, int, int] | None = None


class RowMaker(Protocol):
    """A container that has a table of tensors. This is its whole surface.

    Attributes:
        single: leaves that were read one by one, which it may make rows of later.
        have_rows: whether it makes rows of tensors that are offered to it.
    """

    single: list[Leaf]

    @property
    def have_rows(self) -> bool: ...

    def offer(self, kinds: Sequence[RowKind], claims: Sequence[int], of: Numbers, keys: Numbers) -> Numbers:
        """Return a number for each of these tensors, consecutive; -1 for those that do not cover a storage exactly.

        `kinds`: the different kinds, and `claims`: how many bytes the pickle says that a storage of each kind has. For each
        tensor, `of` is the number of its kind, and `keys` is the key of its storage.
        """

    def claim(self, number: int, count: int) -> list[Leaf] | None:
        """Return leaves, as rows, for tensors with consecutive numbers; None if another tensor already has one of the
        storages."""


class TypedStorage:
    """A storage with an element type: the value for a StorageId, and a value that a file can contain itself.

    `numel` elements of `dtype` (bytes if None) must fit in `storage`; the code that creates it has checked that.
    """

    __slots__ = ("dtype", "nbytes", "numel", "storage")

    def __init__(self, storage: Storage, dtype: DType | None, numel: int) -> None:
        self.storage = storage
        self.dtype = dtype
        self.numel = numel
        self.nbytes = numel if dtype is None else numel * dtype.itemsize

    def leaf(self) -> Leaf:
        """Return all of it as a one-dimensional tensor."""
        return Leaf(contiguous(self.dtype or find_dtype("uint8"), (self.numel,)), self.storage)

    def __repr__(self) -> str:
        return f"TypedStorage({self.dtype or 'untyped'}, {self.numel})"


class Size(tuple[int, ...]):
    """`torch.Size`: a tuple of ints."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Size({list(self)})"


@dataclass(frozen=True, slots=True)
class TorchConstant:
    """A named constant of PyTorch: a device, layout, memory format or qscheme.

    >>> str(TorchConstant("layout", "strided"))
    'torch.strided'
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        return printable(self.name if self.kind == "device" else f"torch.{self.name}")


class Pair(NamedTuple):
    """A key and value set on an Opaque (among its `items`), as opposed to an appended list item."""

    key: Any
    value: Any


class Import(NamedTuple):
    """A global named in a pickle.

    `risk`: "safe": built by our own code; "unknown": becomes an Opaque value; "dangerous": under pickle, importing or
    calling it runs code chosen by the file.
    """

    module: str
    name: str
    risk: Risk

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Parsed:
    """The content of a pickle.

    Attributes:
        value: the inert tree.
        globals: every import that it names, in order of first use, including those whose result it discards.
        end: the offset after STOP.
    """

    value: Any
    globals: list[Import]
    end: int

    @property
    def dangerous(self) -> list[str]:
        """Return the imports for which loading the file is refused, as `module.name`."""
        return [named.path for named in self.globals if named.risk == "dangerous"]


class Placement(NamedTuple):
    """The storage that a container assigns to a leaf being written.

    Attributes:
        key: the key of its storage in the file.
        location: the device tag to write.
        nbytes: the size of its storage in the file.
        spec: the leaf within that storage (differs from the leaf's own spec if a view is written dense).
    """

    key: str
    location: str
    nbytes: int
    spec: Spec
