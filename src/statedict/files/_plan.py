"""Plan which system calls a batch of reads becomes; the file executes them.

Spans are sorted; large ones are split so that threads can share them; small neighbours become one vectored read, with
the gaps read into scratch memory. Pieces of 1–8 MiB were fastest, and a system call costs as much as copying a few KiB.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from ._file import Span

PIECE = 4 << 20
GAP = 16 << 10
# The system's limit on the buffers of one vectored call (1024 on Linux).
BUFFERS = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 16


class VectoredRead(NamedTuple):
    """One call: consecutive bytes from `offset`, read into the buffers in turn."""

    offset: int
    nbytes: int
    into: list[memoryview]


def plan_reads(spans: Sequence[Span], *, piece: int = PIECE, gap: int = GAP) -> list[VectoredRead]:
    """Return the calls that fill the spans, sorted by offset: none of more than `piece` bytes, none that reads a gap of
    more than `gap` bytes.

    >>> into = memoryview(bytearray(8))
    >>> [(call.offset, call.nbytes) for call in plan_reads([Span(100, into[:4]), Span(90, into[4:])])]
    [(90, 14)]
    """
    scratch = memoryview(bytearray(gap))
    calls: list[VectoredRead] = []
    start = end = 0
    buffers: list[memoryview] = []

    def flush() -> None:
        nonlocal buffers
        if buffers:
            calls.append(VectoredRead(start, end - start, buffers))
            buffers = []

    for offset, into in sorted(spans, key=_offset):
        between = offset - end
        nbytes = len(into)
        near = 0 <= between <= gap and end + between + nbytes - start <= piece
        if not (buffers and near and len(buffers) + 2 <= BUFFERS):
            flush()
            start = end = offset
            between = 0
        if nbytes > piece:
            calls.extend(_cut(offset, into, piece))
            start = end = offset + nbytes
            continue
        if between:
            buffers.append(scratch[:between])
        buffers.append(into)
        end += between + nbytes
    flush()
    return calls


def _offset(span: Span) -> int:
    return span[0]


def _cut(offset: int, into: memoryview, piece: int) -> list[VectoredRead]:
    pieces = [(start, into[start : start + piece]) for start in range(0, len(into), piece)]
    return [VectoredRead(offset + start, len(part), [part]) for start, part in pieces]
