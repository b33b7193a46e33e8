"""A leaf whose file is missing or damaged: of a checkpoint with several files, only the tensor's name is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from ...errors import FormatError
from ._leaf import Leaf, Read, Storage


class Absent(Leaf):
    """The Leaf of a tensor whose file is missing or damaged. It can be selected, dropped and renamed; any other use raises
    FormatError, which names the file.

    Attributes:
        name: the name of the tensor in the checkpoint.
        file: the path of the file.
        problem: what is wrong with the file, to follow its name.
        cause: the error of reading the file, which is raised instead of one that describes the problem.
    """

    __slots__ = ("cause", "file", "name", "problem")

    def __init__(self, name: str, file: str, problem: str = "is missing", *, cause: FormatError | None = None) -> None:
        self.name = name
        self.file = file
        self.problem = problem
        self.cause = cause
        self.storage = Storage(_AbsentSource(self), ("absent", next(_TOKENS)), 0)

    def error(self) -> FormatError:
        """Return the error to raise when the tensor is needed."""
        if self.cause is not None:
            return self.cause.with_traceback(None)
        return FormatError(
            f"the tensor is in this file, which {self.problem}",
            file=self.file,
            member=self.name,
            hint="download or save it again; tensors in other files can be loaded without it",
        )

    if not TYPE_CHECKING:  # a type checker would accept any attribute name

        def __getattr__(self, name: str) -> Any:
            if name in ("spec", "traits"):
                raise self.error()
            return super().__getattr__(name)

    def __repr__(self) -> str:
        return f"<absent: {self.name!r}>"


class _AbsentSource:
    """The Source of an absent leaf's storage: every method raises its error."""

    def __init__(self, leaf: Absent) -> None:
        self._leaf = leaf

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        raise self._leaf.error()

    def verify(self, storages: Iterable[Storage]) -> None:
        raise self._leaf.error()

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        raise self._leaf.error()


_TOKENS = count()
