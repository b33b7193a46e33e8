"""The description of a format: how to recognise, read and write it. The table has one for each, and so does a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, cast

from statedict.files import File, Folder, Part
from statedict.state import Leaf

from ._limits import Limits
from .checkpoint._checkpoint import Checkpoint

# Number of leading bytes to look at: enough for every signature (that of tar is at byte 257) and to tell text from
# binary.
HEAD = 512

Reader = Callable[[Any, Limits], Checkpoint]
# Takes an object and its metadata; returns the content of the file in order.
Writer = Callable[[Any, Mapping[str, str] | None], Iterable[bytes | Leaf | Part]]


class Format(NamedTuple):
    """A format of files or folders. A plugin provides one; those built in are rows of the same type.

    A function is given itself, or as `"module:function"`, which is imported when it is first needed.

    >>> from statedict.formats import Checkpoint, Format
    >>> def read(file, limits):
    ...     return Checkpoint(file.name, "notes", {"text": file.read(4, file.size - 4)}, size=file.size)
    >>> notes = Format("notes", read, begins=lambda head, file: head.startswith(b"NOTE"))

    Attributes:
        name: what `Checkpoint.format` and the argument `format=` call it.
        read: a function that takes a File or Folder, and Limits, and returns a Checkpoint. It must check everything that it
            reads, and read no tensor. If it raises, or when the checkpoint is closed, the file is closed for it.
        begins: whether a file has this format, judged by its first bytes (up to 512). It may read more of the file.
        holds: whether a folder has this format, judged by `folder.files` and `folder.folders`.
        suffixes: those of files of this format, if it can be written: `(".notes",)`.
        write: a function that takes an object and its metadata (a dict of strings, or None), and returns the content of
            the file: bytes, and leaves, which stand for their elements in row-major order. It reads no tensor. It raises
            SaveError for values that the format cannot store.
        names: a function that takes a state, and returns a mapping from the name of each tensor to the names under which the
            format stores it, if they differ from it.
        jointly: whether several processes can write a file together: `write` returns a Part for each tensor. (Built-in
            formats only.)
    """

    name: str
    read: str | Reader = ""
    begins: Callable[[bytes, File], bool] = lambda head, file: False
    holds: Callable[[Folder], bool] = lambda folder: False
    suffixes: tuple[str, ...] = ()
    write: str | Writer = ""
    names: str | Callable[[Mapping[str, Any]], Mapping[str, list[str]]] = ""
    jointly: bool = False


def function(place: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a row names as `module:function`, imported now; modules of this package begin with a dot."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return cast("Callable[..., Any]", getattr(import_module(module, __package__), name))


def head_of(file: File) -> bytes:
    """Return the first bytes of a file, which identify its format."""
    return file.read(0, min(file.size, HEAD))


def close_with(checkpoint: Checkpoint, source: File | Folder) -> Checkpoint:
    """Let `close` of a checkpoint close this file or folder, too; return the checkpoint."""
    close = checkpoint._close

    def close_both() -> None:
        close()
        source.close()

    checkpoint._close = close_both
    return checkpoint
