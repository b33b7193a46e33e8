"""Laws on content: what is written is read, wherever the file is."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .._law import law
from .._samples import Array, array_of, layouts, same, shown
from ._attempt import parts_of, read_each
from ._format_under_test import FormatUnderTest
from ._pickled import RAN, evil_pickle
from ._recording_file import RecordingFile
from ._watch import the_watch

# The content of a file decides, not these.
SUFFIXES = ("", ".pt", ".safetensors", ".npz", ".json", ".unknown")
TEXTS = {"epoch": "3", "note": "größe: 1\n2"}


class ContentLaws(FormatUnderTest):
    """Laws of a format's suite on what files contain."""

    @law
    def test_files_are_recognised_by_their_content(self) -> Iterator[str]:
        """A file is recognised by its content, whatever its name is."""
        for name, data in self.as_files(self.write(self.small(), {})).items():
            for suffix in SUFFIXES:
                with self.open(RecordingFile(f"{name}{suffix}", data)) as checkpoint:
                    if checkpoint.format != self.format:
                        yield f"{name}{suffix} has the format {checkpoint.format!r}, not {self.format!r}"

    @law
    def test_every_dtype_and_shape_is_read_as_written(self) -> Iterator[str]:
        """Arrays of every dtype and shape, also without dimensions or elements, are read bit for bit as written."""
        arrays = [array_of(dtype, shape, 3) for dtype in self.dtypes for shape in self.shapes]
        yield from self._unequal(arrays)

    @law
    def test_every_layout_is_read_as_written(self) -> Iterator[str]:
        """Arrays whose elements do not lie one after the other in memory are read as written."""
        yield from self._unequal([*layouts(self.dtypes[0]).values(), *layouts(self.dtypes[-1]).values()])

    def _unequal(self, arrays: list[Array]) -> Iterator[str]:
        step = len(self.names)
        for start in range(0, len(arrays), step):
            state = dict(zip(self.names, arrays[start : start + step]))
            found = self.attempt(self.files_of(state))
            if found.error is not None:
                yield f"opening a file of {', '.join(map(shown, state.values()))} raises {shown(found.error)}"
                continue
            for name, array in self.expected(state).items():
                if not same(found.found.get(name), array):
                    yield f"{name!r}, {shown(array)}, is read as {shown(found.found.get(name))}"

    @law
    def test_names_keep_their_order(self) -> Iterator[str]:
        """Names are read as written, in the same order."""
        for names in (list(self.names), list(reversed(self.names))):
            state = {name: array_of(self.dtypes[0], (2,), seed) for seed, name in enumerate(names)}
            found, wanted = list(self.attempt(self.files_of(state)).found), list(self.expected(state))
            if found != wanted:
                yield f"{wanted} is read as {found}"

    @law
    def test_tied_tensors_stay_tied(self) -> Iterator[str]:
        """Names that share one array share one storage when they are read, and no other names do."""
        if not self.ties or len(self.names) < 3:
            pytest.skip("the format does not store ties")
        shared = array_of(self.dtypes[0], (3, 2), 1)
        state = dict(zip(self.names, [shared, array_of(self.dtypes[0], (3, 2), 2), shared]))
        first, other, again = self.names[:3]
        files = self.files_of(state)
        with self.open(self.source(files)) as checkpoint:
            tensors = self.tensors(checkpoint).items()
            keys = {name: leaf.storage.key for name, tensor in tensors for leaf in parts_of(tensor)}
        if keys.get(first) != keys.get(again):
            yield f"{first!r} and {again!r} are no longer tied"
        if keys.get(first) == keys.get(other):
            yield f"{first!r} and {other!r} are tied now"
        found = self.attempt(files).found
        yield from (f"{name!r} has other elements" for name, array in state.items() if not same(found.get(name), array))

    @law
    def test_metadata_is_kept(self) -> Iterator[str]:
        """Text metadata is read as written, in `Checkpoint.texts`."""
        if not self.metadata:
            pytest.skip("the format does not store metadata")
        with self.open(self.source(self.files_of(self.small(), TEXTS))) as checkpoint:
            found = checkpoint.texts
        yield from (
            f"{key!r} is {found.get(key)!r}, not {text!r}" for key, text in TEXTS.items() if found.get(key) != text
        )

    @law
    def test_paths_and_file_objects_are_read_alike(self) -> Iterator[str]:
        """A path, a file object and one that is not at its beginning give the same tensors; file objects stay open."""
        [(_, data)] = self.files_of(self.small()).items()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "sample")
            path.write_bytes(data)
            ahead = io.BytesIO(b"ahead" + data)
            ahead.seek(5)
            with path.open("rb", buffering=0) as unbuffered:
                for source in (str(path), path, io.BytesIO(data), ahead, unbuffered):
                    yield from self.differences(source, len(data))
                    if getattr(source, "closed", False):
                        yield f"{source!r} was closed"

    def differences(self, source: Any, size: int) -> Iterator[str]:
        """Return how the checkpoint in `source` differs from the small state in a file of `size` bytes."""
        wanted = self.expected(self.small())
        with self.open(source) as checkpoint:
            found = read_each(self.tensors(checkpoint))
            if checkpoint.size != size:
                yield f"the size of {source!r} is {checkpoint.size:,}, not {size:,} bytes"
        if found.keys() != wanted.keys():
            yield f"{source!r} has the names {list(found)}, not {list(wanted)}"
        yield from (f"{name!r} of {source!r} differs" for name in wanted if not same(found.get(name), wanted[name]))

    @law
    def test_nothing_in_a_file_is_run(self) -> Iterator[str]:
        """Reading a file imports nothing, opens no other file and runs no code, and a pickle that would is reported."""
        RAN.clear()
        files = [self.files_of(self.small())]
        infected = self.infected(evil_pickle())
        if infected is not None:
            files.append(self.as_files(infected))
            with self.open(self.source(files[1])) as checkpoint:
                if not checkpoint.dangerous:
                    yield "a pickle that would run `eval` is not among the `dangerous` imports"
        for each in files:
            self.attempt(each)
            with the_watch().on() as events:
                self.attempt(each)
            yield from events
        if RAN:
            yield "code of a pickle was run"
