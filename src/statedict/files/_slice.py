"""Part of a file as a File: a chunk of a checkpoint directory, or a file that is opened again when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ..errors import TruncatedError
from ._file import File, Span


class FileSlice:
    """A File of the bytes `start … start + size` of another one.

    `whole` returns the file on each use, so that a directory of thousands of files needs only a few open at a time. Its
    owner closes it. `folder` opens the file with another name in the same folder, if this is a whole file.
    """

    def __init__(
        self,
        name: str,
        whole: Callable[[], File],
        start: int,
        size: int,
        folder: Callable[[str], File | None] = lambda name: None,
    ) -> None:
        self.name = name
        self.size = size
        self._whole = whole
        self._start = start
        self._folder = folder

    @property
    def far(self) -> bool:
        return self._whole().far

    def read(self, offset: int, nbytes: int) -> bytes:
        self._check(offset, nbytes)
        return self._whole().read(self._start + offset, nbytes)

    def read_into(self, spans: Sequence[Span]) -> None:
        whole = self._whole()
        if self.size == whole.size:
            return whole.read_into(spans)
        for offset, into in spans:
            self._check(offset, len(into))
        whole.read_into([Span(self._start + offset, into) for offset, into in spans])

    def mapped(self) -> memoryview | None:
        whole = self._whole().mapped()
        return None if whole is None else whole[self._start : self._start + self.size]

    def lease(self, until: ExitStack) -> Callable[[], bool] | None:
        return self._whole().lease(until)

    def beside(self, name: str) -> File | None:
        return self._folder(name)

    def check_unchanged(self) -> None:
        self._whole().check_unchanged()

    def close(self, at: int = 0) -> None:
        """Do nothing: the owner closes the file."""

    def _check(self, offset: int, nbytes: int) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise TruncatedError(
                f"{nbytes:,} bytes are needed here, but this part of the file has only {self.size:,}",
                file=self.name,
                offset=offset,
            )
