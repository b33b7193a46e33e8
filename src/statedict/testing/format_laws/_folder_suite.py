"""FolderSuite: what every format of checkpoints in several files must do.

It differs from FormatSuite where damage is concerned: one damaged file must not make the others unreadable.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from statedict.files import File, Folder

from .._law import law
from .._samples import shown
from ._attempt import attempt
from ._damage_laws import PADDING
from ._format_suite import FormatSuite
from ._format_under_test import Files
from ._recording_file import Reading, recording_folder

PATH = "sample-folder"


class FolderSuite(FormatSuite):
    """The laws of a format of checkpoints in several files: `write` returns files by name (`"part/0.bin"`, for example).

    Attributes:
        needed: patterns of the names of files without which the folder may be unreadable, such as an index.

    >>> import tempfile, statedict
    >>> from pathlib import Path
    >>> class TestShards(FolderSuite):
    ...     format = "sharded"
    ...     needed = ("*.index.json",)
    ...
    ...     def write(self, state, metadata):
    ...         with tempfile.TemporaryDirectory() as folder:
    ...             statedict.save(statedict.StateDict(state), Path(folder, "model.bin"), max_shard_size=1)
    ...             return {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    >>> TestShards().test_missing_files_are_named()
    """

    needed: ClassVar[Sequence[str]] = ()
    copies: ClassVar[int] = 600

    def source(self, files: Files, log: list[Reading] | None = None) -> File | Folder:
        return recording_folder(PATH, files, [] if log is None else log)

    def places(self, files: Files) -> list[str]:
        return [PATH]

    @law
    def test_files_are_recognised_by_their_content(self) -> Iterator[str]:
        """A folder is recognised by the files in it, whatever its own name is."""
        files = self.files_of(self.small())
        for path in (PATH, "model.pt", "checkpoint-10", "model.safetensors"):
            with self.open(recording_folder(path, files, [])) as checkpoint:
                if checkpoint.format != self.format:
                    yield f"{path} has the format {checkpoint.format!r}, not {self.format!r}"

    @law
    def test_paths_and_file_objects_are_read_alike(self) -> Iterator[str]:
        """A folder on disk gives the same tensors, wherever it is, and its size is that of its files."""
        files = self.files_of(self.small())
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "first")
            for name, data in files.items():
                place.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
                place.joinpath(name).write_bytes(data)
            size = sum(map(len, files.values()))
            for source in (place, str(place), f"{place}/"):
                yield from self.differences(source, size)
            yield from self.differences(place.rename(place.with_name("moved")), size)

    @law
    def test_truncated_files_are_refused(self) -> Iterator[str]:
        """A file that ends early, at whatever byte, is named in a FormatError or a note; tensors that do not need it are
        the same."""
        whole = self.files_of(self.small())
        for name, done, files in self.prefixes(whole):
            found = self.attempt(files)
            cut = whole[name][len(files[name]) :]
            noted = found.noted(name)
            needed = any(fnmatchcase(name, pattern) for pattern in self.needed)
            wrong = self.wrong(found, [name, PATH] if noted or needed else [name], None, lost=noted)
            if wrong:
                yield f"{done}: {wrong}"
            elif not any(found.errors) and not noted and cut.strip(PADDING):
                yield f"{done} is read"

    @law
    def test_missing_files_are_named(self) -> Iterator[str]:
        """A missing file is named in a note, or in an error of each tensor that needs it; the other tensors are the same."""
        files = self.files_of(self.small())
        for name in files:
            needed = any(fnmatchcase(name, pattern) for pattern in self.needed)
            found = self.attempt({other: data for other, data in files.items() if other != name})
            lost = found.noted(name) or needed
            wrong = self.wrong(found, [name, PATH] if lost else [name], None, lost=lost)
            if wrong:
                yield f"without {name}: {wrong}"
            elif found.error is not None and not needed:
                yield f"without {name}, nothing can be read: {shown(found.error)}"

    @law
    def test_names_do_not_leave_the_folder(self) -> Iterator[str]:
        """A file whose name in another file leads out of the folder is not read."""
        files = self.files_of(self.small())
        for name in files:
            for begin in ("../", "..\\", "/"):
                outside = begin + "x" * (len(name) - len(begin))
                renamed = {other: data.replace(name.encode(), outside.encode()) for other, data in files.items()}
                log: list[Reading] = []
                found = attempt(lambda: self.open(self.source({**renamed, outside: files[name]}, log)), self.tensors)  # noqa: B023
                if any(reading.file.endswith(outside) for reading in log):
                    yield f"{outside!r} in place of {name!r} is read"
                wrong = self.wrong(found, [*files, PATH], None, anything=True)
                if wrong:
                    yield f"{outside!r} in place of {name!r}: {wrong}"
