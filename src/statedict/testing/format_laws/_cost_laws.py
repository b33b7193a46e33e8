"""Laws on cost and use: lazy, small in memory, usable from threads, closed when it is closed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial

from statedict.state import Compound, Leaf, read_array

from .._law import law
from .._samples import Array, same, shown
from ._attempt import parts_of, peak_of, read_each
from ._format_under_test import SLACK, FormatUnderTest
from ._recording_file import Reading

THREADS, TIMES = 4, 10


class CostLaws(FormatUnderTest):
    """Laws of a format's suite on what reading costs, threads, and closing."""

    @law
    def test_opening_reads_only_the_description(self) -> Iterator[str]:
        """Opening a file and listing its tensors reads no data of them."""
        log: list[Reading] = []
        files = self.files_of(self.large())
        with self.open(self.source(files, log)) as checkpoint:
            for tensor in self.tensors(checkpoint).values():
                assert all(leaf.spec.numel for leaf in parts_of(tensor))
        read = sum(reading.nbytes for reading in log)
        if read > SLACK:
            yield f"opening a file of {sum(map(len, files.values())):,} bytes reads {read:,} of them"

    @law
    def test_one_tensor_reads_only_its_bytes(self) -> Iterator[str]:
        """Reading one tensor reads its bytes and not those of other tensors."""
        log: list[Reading] = []
        with self.open(self.source(self.files_of(self.large()), log)) as checkpoint:
            for name, tensor in self.tensors(checkpoint).items():
                log.clear()
                nbytes = sum(array.nbytes for array in arrays_of(tensor))
                read = sum(reading.nbytes for reading in log)
                if read > nbytes + SLACK:
                    yield f"reading {name!r}, which has {nbytes:,} bytes, reads {read:,} bytes of the file"

    @law
    def test_opening_needs_little_memory(self) -> Iterator[str]:
        """Opening a file takes no memory for its data."""
        self.attempt(self.files_of(self.small()))
        files = self.files_of(self.large())
        source = self.source(files)
        checkpoint, peak = peak_of(lambda: self.open(source))
        checkpoint.close()
        if peak > SLACK:
            yield f"opening a file of {sum(map(len, files.values())):,} bytes allocates {peak:,} bytes"

    @law
    def test_reading_needs_the_memory_of_one_tensor(self) -> Iterator[str]:
        """Reading a tensor takes memory for that tensor once."""
        self.attempt(self.files_of(self.small()))
        with self.open(self.source(self.files_of(self.large()))) as checkpoint:
            for name, tensor in self.tensors(checkpoint).items():
                arrays, peak = peak_of(partial(arrays_of, tensor))
                nbytes = sum(array.nbytes for array in arrays)
                if peak > nbytes + SLACK:
                    yield f"reading {name!r}, which has {nbytes:,} bytes, allocates {peak:,} bytes"

    @law
    def test_a_closed_checkpoint_cannot_be_read(self) -> Iterator[str]:
        """After `close` an unread tensor raises a ValueError that says so; arrays that were read stay valid."""
        state, files = self.expected(self.small()), self.files_of(self.small())
        kept = self.attempt(files).found
        yield from (
            f"{name!r} has changed since it was read" for name in state if not same(kept.get(name), state[name])
        )
        with self.open(self.source(files)) as checkpoint:
            tensors = self.tensors(checkpoint)
        checkpoint.close()
        for name, value in read_each(tensors).items():
            if not isinstance(value, ValueError) or "closed" not in str(value):
                yield f"reading {name!r} after `close` gives {shown(value)}"

    @law
    def test_threads_may_read_one_checkpoint(self) -> Iterator[str]:
        """Threads that read the tensors of one checkpoint at the same time get the right elements."""
        state = self.expected(self.small())
        wrong: set[str] = set()

        def read(tensors: Mapping[str, Leaf | Compound]) -> None:
            for _ in range(TIMES):
                found = read_each(tensors)
                bad = (name for name in state if not same(found[name], state[name]))
                wrong.update(f"{name!r} is read as {shown(found[name])}" for name in bad)

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with self.open(self.source(self.files_of(self.small()))) as checkpoint:
                tensors = self.tensors(checkpoint)
                threads = [threading.Thread(target=read, args=(tensors,)) for _ in range(THREADS)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        finally:
            sys.setswitchinterval(before)
        yield from sorted(wrong)


def arrays_of(tensor: Leaf | Compound) -> list[Array]:
    """Return the arrays of a tensor."""
    return [read_array(leaf) for leaf in parts_of(tensor)]
