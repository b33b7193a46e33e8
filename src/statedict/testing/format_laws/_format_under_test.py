"""What a subclass of a format's suite provides, and how the laws write, open and damage its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from statedict import formats
from statedict.files import File, Folder
from statedict.formats import Checkpoint
from statedict.state import Compound, Leaf

from .._samples import ALL, SHAPES, Array, array_of
from ._attempt import ReadAttempt, attempt
from ._recording_file import Reading, RecordingFile

Files = Mapping[str, bytes]
# The name of a single file, which errors must show; it has no known suffix.
ONE = "sample-file"
# Bytes of each tensor in a file that is mostly data.
LARGE = 4 << 20
# Bytes that opening may read and allocate, and that reading a tensor may in addition to its size: some read 1 MiB at a time.
SLACK = 5 << 18

T = TypeVar("T")


class FormatUnderTest(ABC):
    """What a subclass provides. `format` and `write` are required; the rest has defaults.

    Attributes:
        format: the `format` of its checkpoints.
        dtypes: the dtypes that it stores, by PyTorch's names. Default: all that NumPy and ml_dtypes have.
        shapes: shapes that it stores.
        names: names of tensors that it stores, at least two unless it stores a single tensor.
        metadata: whether it stores text metadata.
        ties: whether tied tensors are tied when they are read.
        checksums: whether checksums cover every byte that matters.
        copies: how many damaged copies of a file each law tries. If fewer than the file has bits, they are spread evenly.
    """

    format: ClassVar[str]
    dtypes: ClassVar[Sequence[str]] = ALL
    shapes: ClassVar[Sequence[tuple[int, ...]]] = SHAPES
    names: ClassVar[Sequence[str]] = ("layer.weight", "bias", "größe", "a/b")
    metadata: ClassVar[bool] = True
    ties: ClassVar[bool] = True
    checksums: ClassVar[bool] = True
    copies: ClassVar[int] = 3_000

    @abstractmethod
    def write(self, state: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes | Files:
        """Return a file (or files by name) with NumPy arrays by name. An array under two names is tied."""

    def open(self, source: Any) -> Checkpoint:
        """Open a path, file object, File or Folder. The default recognises the format among all formats."""
        return formats.open(source)

    def tensors(self, checkpoint: Checkpoint) -> Mapping[str, Leaf | Compound]:
        """Return the tensors that `write` was given, unread. The default takes them from the one state dict in the file."""
        return dict(checkpoint.state_dict().leaves())

    def expected(self, state: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return what is read of a state that was written, if that is not the state itself (its order, for example)."""
        return state

    def infected(self, pickle: bytes) -> bytes | Files | None:
        """Return a file with this pickle where the format has one; None if its files do not contain pickles."""
        return None

    # for the laws

    def files_of(self, state: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Files:
        """Write a state; return the files by name."""
        return self.as_files(self.write(state, metadata or {}))

    def as_files(self, written: bytes | Files) -> Files:
        """Return what `write` returned as files by name."""
        return {ONE: written} if isinstance(written, bytes) else written

    def source(self, files: Files, log: list[Reading] | None = None) -> File | Folder:
        """Return files in memory as `open` takes them; every read is added to `log`."""
        [(name, data)] = files.items()
        return RecordingFile(name, data, log)

    def places(self, files: Files) -> list[str]:
        """Return the names of which an error must contain one."""
        return list(files)

    def attempt(self, files: Files) -> ReadAttempt:
        """Open the files and read all tensors in them."""
        return attempt(lambda: self.open(self.source(files)), self.tensors)

    def small(self) -> dict[str, Array]:
        """Return a state whose file is short, for laws that try many damaged copies of it."""
        arrays = [array_of(self.dtypes[0], (2, 4), 1), array_of(self.dtypes[-1], (9,), 2)]
        return dict(zip(self.names, arrays))

    def large(self) -> dict[str, Array]:
        """Return a state of tensors that are much larger than the description of a file."""
        count = LARGE // array_of(self.dtypes[0], (1,)).itemsize
        return {name: array_of(self.dtypes[0], (count,), seed) for seed, name in enumerate(self.names[:2])}

    def prefixes(self, files: Files) -> Iterator[tuple[str, str, Files]]:
        """Return truncated copies as (file, what was done, files)."""
        for name, data in files.items():
            for size in spread_evenly(range(len(data)), self.copies // len(files)):
                yield name, f"{name} with {size:,} of {len(data):,} bytes", {**files, name: data[:size]}


def spread_evenly(items: Sequence[T], most: int) -> list[T]:
    """Return all items if there are at most `most`, else that many of them from beginning to end."""
    step = max(1, len(items) / max(1, most))
    return [items[int(n * step)] for n in range(int(len(items) / step))]


def located(files: Files, state: Mapping[str, Array]) -> dict[tuple[str, int], str]:
    """Return for each byte (file, offset) that is certainly an element of a tensor the name of that tensor."""
    found: dict[tuple[str, int], str] = {}
    for tensor, array in state.items():
        raw = array.tobytes()
        places = [(name, data.find(raw)) for name, data in files.items() if len(raw) >= 8 and data.count(raw) == 1]
        if len(places) == 1:
            file, start = places[0]
            found |= {(file, at): tensor for at in range(start, start + len(raw))}
    return found
