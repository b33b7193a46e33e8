"""The files that the metadata of a torch.distributed.checkpoint directory refers to: which are missing, which too short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from statedict.files import Folder, Location

from ...errors import FormatError
from ..checkpoint._checkpoint import Finding


class StoredFiles:
    """The files at some locations.

    Attributes:
        size: bytes of all files together.

    Raises FormatError if two locations overlap: reading them could cost more than the files have bytes; and if all files
    are missing.
    """

    def __init__(self, folder: Folder, locations: Iterable[Location]) -> None:
        self._ends: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._missing: dict[str, str] = {}
        self._located: Counter[str] = Counter()
        for location in sorted(locations):
            self._add(folder, location)
        self.size = sum(self._sizes.values())
        if self._missing and not self._sizes:
            raise FormatError(
                f"none of the {len(self._missing):,} files that the metadata refers to can be opened; the first of them, "
                f"{min(self._missing)}, {self._missing[min(self._missing)]}",
                file=folder.path,
                hint="download or save them again",
            )

    def problem(self, location: Location) -> str | None:
        """Return why the bytes at a location cannot be read, to follow the name of the file; None if they can."""
        if location.file in self._missing:
            return self._missing[location.file]
        size, end = self._sizes[location.file], location.start + location.nbytes
        return None if end <= size else f"should have at least {end:,} bytes, but has {size:,}"

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong with each file that cannot be read completely."""
        last = {file: self.problem(Location(file, 0, end)) for file, end in self._ends.items()}
        return {file: problem for file, problem in last.items() if problem}

    def notes(self) -> list[str]:
        total = self._located.total()
        return [
            f"{file} {problem}; the metadata places {self._located[file]:,} of {total:,} stored items in it"
            for file, problem in self.problems.items()
        ]

    def check(self) -> Iterator[Finding]:
        """Yield an error for each file that is missing or too short."""
        for file, problem in self.problems.items():
            yield Finding("error", file, f"the file {problem}")

    def _add(self, folder: Folder, location: Location) -> None:
        file = location.file
        if file not in self._ends:
            try:
                self._sizes[file] = folder.size(file)
            except FileNotFoundError:
                self._missing[file] = "is missing"
            except OSError as error:
                self._missing[file] = f"cannot be opened: {error.strerror}"
        if location.start < self._ends.get(file, 0):
            raise FormatError(
                "the metadata stores two items in overlapping bytes", file=folder.path_of(file), offset=location.start
            )
        self._ends[file] = location.start + location.nbytes
        self._located[file] += 1
