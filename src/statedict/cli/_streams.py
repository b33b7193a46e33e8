"""`-` instead of a file name: read from standard input, or write to standard output.

Reading a checkpoint needs random access, so a pipe is first copied to an unnamed temporary file (not to memory). A terminal
is refused as input and output.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import typer

import statedict

from ..errors import printable

if TYPE_CHECKING:
    from statedict import Checkpoint

STREAM = "-"
NAME = "<stdin>"


@contextmanager
def opened(file: str) -> Iterator[Checkpoint]:
    """Open the checkpoint in a file, or on standard input if the file is `-`, for a `with` block."""
    if file != STREAM:
        with statedict.open(file) as checkpoint:
            yield checkpoint
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("`-` is standard input, but nothing is piped into it; give a file name")
    given = sys.stdin.buffer
    if given.seekable():
        with statedict.open(given) as checkpoint:
            yield checkpoint
        return
    with tempfile.TemporaryFile(buffering=0) as kept:
        shutil.copyfileobj(given, kept)
        kept.seek(0)
        kept.name = NAME  # instead of its descriptor's number, for messages
        with statedict.open(kept) as checkpoint:
            yield checkpoint


def tell(text: str, *, err: bool = False) -> None:
    """Print lines on standard output or standard error, with control characters in names escaped."""
    typer.echo(printable(text, keep="\n"), err=err)


def one_line(error: Exception) -> str:
    """Return the error as one line; a system error begins with the file name, as our errors do."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or "out of memory"


def reason(error: Exception, file: str) -> str:
    """Return the error as one line, without the file name at the start."""
    return one_line(error).removeprefix(f"{printable(file)}: ")


def target(destination: str) -> str | BinaryIO:
    """Return the path to write to, or the binary standard output if it is `-`."""
    if destination != STREAM:
        return destination
    if sys.stdout.isatty():
        raise typer.BadParameter("`-` is standard output, which is a terminal; give a file name, or pipe the output")
    return sys.stdout.buffer
