"""The checkpoints in some files of a folder. Those that cannot be opened do not keep the others from loading."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from statedict.files import Folder

from ...errors import FormatError, LimitError
from .._limits import Limits
from .._pickle import Import
from .._table import read, read_folder
from ..checkpoint._checkpoint import Checkpoint, Finding


def opened(folder: Folder, name: str, limits: Limits) -> Checkpoint:
    """Open the checkpoint in a file of a folder, or in a folder of it."""
    return read_folder(folder.folder(name), limits) if name in folder.folders else read(folder.file(name), limits)


class OpenCheckpoints:
    """Checkpoints that were opened one by one, by name: that of a file, or of a root.

    Attributes:
        checkpoints: those that could be opened.
        failed: why the others could not.
    """

    def __init__(self) -> None:
        self.checkpoints: dict[str, Checkpoint] = {}
        self.failed: dict[str, FormatError | OSError] = {}

    def add(self, name: str, opener: Callable[[], Checkpoint]) -> None:
        """Open one more, or keep the error. Raises LimitError: exceeding a limit is an error of the whole."""
        try:
            self.checkpoints[name] = opener()
        except LimitError:
            raise
        except (FormatError, OSError) as error:
            self.failed[name] = error

    def require_one(self) -> None:
        """Raise the first error if none could be opened."""
        if self.failed and not self.checkpoints:
            raise next(iter(self.failed.values()))

    def globals(self) -> Iterator[Import]:
        """Yield the imports of all."""
        for checkpoint in self.checkpoints.values():
            yield from checkpoint.globals

    def checks(self) -> Iterator[Finding]:
        """Yield why some cannot be opened, and the problems of the others; the place begins with the name."""
        for name, error in self.failed.items():
            yield Finding.of(name, error)
        for name, checkpoint in self.checkpoints.items():
            try:
                for finding in checkpoint._checks():
                    yield finding._replace(where="/".join(filter(None, (name, finding.where))))
            except (FormatError, OSError) as error:
                yield Finding.of(name, error)
