"""`-` in the place of a file: what comes in by standard input, what goes out by standard output.

A checkpoint is read from its end first, and a pipe has none; so what comes through one is put into an unnamed temporary
file, not into memory. A terminal neither holds a checkpoint nor should be shown one.
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
    """The checkpoint in a file, or on standard input where the file is `-`, while the `with` block runs."""
    if file != STREAM:
        with statedict.open(file) as checkpoint:
            yield checkpoint
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("`-` is standard input, and nothing is piped in; name a file")
    given = sys.stdin.buffer
    if given.seekable():
        with statedict.open(given) as checkpoint:
            yield checkpoint
        return
    with tempfile.TemporaryFile(buffering=0) as kept:
        shutil.copyfileobj(given, kept)
        kept.seek(0)
        kept.name = NAME  # its descriptor's number, which would stand in every message
        with statedict.open(kept) as checkpoint:
            yield checkpoint


def tell(text: str, *, err: bool = False) -> None:
    """Print lines of our own, on standard output or standard error: names in them cannot command the terminal."""
    typer.echo(printable(text, keep="\n"), err=err)


def one_line(error: Exception) -> str:
    """The error in one line: the system's own errors begin with the file, as ours do."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or "out of memory"


def reason(error: Exception, file: str) -> str:
    """The same without the file where that stands before it anyway."""
    return one_line(error).removeprefix(f"{printable(file)}: ")


def target(destination: str) -> str | BinaryIO:
    """Where to write: the path, or standard output's bytes where it is `-`."""
    if destination != STREAM:
        return destination
    if sys.stdout.isatty():
        raise typer.BadParameter("`-` is standard output, which is the terminal; name a file, or pipe it somewhere")
    return sys.stdout.buffer
