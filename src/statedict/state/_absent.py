"""A leaf whose file is not there: a name of a checkpoint of several files, of which nothing else is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from ._leaf import Leaf, Read, Storage


class Absent(Leaf):
    """The Leaf of a name whose file is missing. It can be selected, dropped and renamed; asking for anything else raises
    FormatError, which names the file.

    Attributes:
        name: what the checkpoint calls the tensor.
        file: the path of the file that should hold it.
    """

    __slots__ = ("file", "name")

    def __init__(self, name: str, file: str) -> None:
        self.name = name
        self.file = file
        self.storage = Storage(_Nowhere(self), ("absent", next(_TOKENS)), 0)

    def error(self) -> FormatError:
        """What is raised where the tensor is needed."""
        return FormatError(
            "the tensor lies in this file, which is missing",
            file=self.file,
            member=self.name,
            hint="fetch or save it again; tensors of other files can be loaded without it",
        )

    if not TYPE_CHECKING:  # to which any name would be an attribute

        def __getattr__(self, name: str) -> Any:
            if name in ("spec", "traits"):
                raise self.error()
            return super().__getattr__(name)

    def __repr__(self) -> str:
        return f"<absent: {self.name!r}>"


class _Nowhere:
    """The Source of an absent leaf's storage."""

    def __init__(self, leaf: Absent) -> None:
        self._leaf = leaf

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        raise self._leaf.error()

    def verify(self, storages: Iterable[Storage]) -> None:
        raise self._leaf.error()

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        raise self._leaf.error()


_TOKENS = count()
