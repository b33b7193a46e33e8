"""Files on the command line: open them, write to them, and check that no input is overwritten.

`-` is standard input or standard output. Reading a checkpoint needs random access, so a pipe is first copied to an unnamed
temporary file (not to memory). A terminal is refused as input and output.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

import statedict
from statedict.files import is_url
from statedict.state import StateDict, few, matcher

from ..errors import RootError, printable
from ._options import in_options

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
        raise click.BadParameter("`-` is standard input, but nothing is piped into it; give a file name")
    given = sys.stdin.buffer
    if given.seekable():
        with statedict.open(given) as checkpoint:
            yield checkpoint
        return
    from tempfile import TemporaryFile  # imports random and hashlib: 10 ms, only needed here

    with TemporaryFile(buffering=0) as kept:
        shutil.copyfileobj(given, kept)
        kept.seek(0)
        kept.name = NAME  # instead of its descriptor's number, for messages
        with statedict.open(kept) as checkpoint:
            yield checkpoint


def default_root(checkpoint: Checkpoint) -> str | None:
    """Return the path of the default root; None if there is no clear default."""
    with suppress(RootError):
        taken = checkpoint.state_dict()
        return next((path for path, state in checkpoint.roots.items() if state is taken), None)
    return None


def state_at(checkpoint: Checkpoint, root: str) -> StateDict:
    """Return the state dict at a path; say on standard error which one `auto` stands for if there are several."""
    state = checkpoint.state_dict(root)
    if root == "auto":
        path = default_root(checkpoint)
        others = [repr(other) for other in checkpoint.roots if other != path]
        if path is not None and others:
            note(f"{checkpoint.path}: used root {path!r}, the checkpoint also has {few(others)}")
    return state


def tell(text: str, *, err: bool = False) -> None:
    """Print lines on standard output or standard error, with control characters in names escaped."""
    click.echo(printable(text, keep="\n"), err=err)


def note(text: str) -> None:
    """Print a line on standard error that begins with the program's name."""
    tell(f"statedict: {text}", err=True)


@contextmanager
def warnings_told() -> Iterator[None]:
    """Print the warnings of the `with` block on standard error."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        yield
    for warning in notes:
        note(str(warning.message))


def one_line(error: Exception) -> str:
    """Return the error as one line; a system error begins with the file name, as our errors do."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return in_options(" ".join(str(error).split())) or "out of memory"


def target(destination: str) -> str | BinaryIO:
    """Return the path to write to, or the binary standard output if it is `-`."""
    if destination != STREAM:
        return destination
    if sys.stdout.isatty():
        raise click.BadParameter("`-` is standard output, which is a terminal; give a file name, or pipe the output")
    return sys.stdout.buffer


INDEX = ".index.json"


def keep_inputs(destination: str | os.PathLike[str], *sources: str | os.PathLike[str] | None, option: str) -> None:
    """Refuse an output that is one of the input files, also under another name: links are followed."""
    for source in sources:
        if source is not None and any(_is_same(destination, part) for part in _files_of(str(source))):
            raise click.BadParameter(
                f"{destination} is an input of this command and would be lost; choose another file",
                param_hint=option,
            )


def is_in_place(destination: str, source: str) -> bool:
    """Whether the output is the input file; refuses an output that is only a part of the input."""
    if _is_same(destination, source):
        return True
    keep_inputs(destination, source, option="DESTINATION")
    return False


def _files_of(source: str) -> Iterator[str | int]:
    """Return the files of a source: itself, the files below a directory, or the shards of an index; none for a URL."""
    if source == STREAM:
        yield from _standard_input()
    elif not is_url(source):
        yield source
        if os.path.isdir(source):
            yield from (os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names)
        elif source.endswith(INDEX) and os.path.isfile(source):
            yield from (str(Path(source).parent / name) for name in shards(Path(source)))


def _standard_input() -> list[int]:
    try:
        return [sys.stdin.fileno()]
    except (AttributeError, OSError, ValueError):
        return []


def shards(index: Path) -> set[str]:
    """Return the names of the files that an index lists."""
    try:
        names = json.loads(index.read_bytes())["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return set()  # opening it will raise a proper error
    return {name for name in names if isinstance(name, str)}


def _is_same(destination: str | os.PathLike[str], source: str | int) -> bool:
    if destination == STREAM or is_url(destination):
        return False
    try:
        return os.path.samestat(os.stat(destination), os.stat(source))
    except (OSError, ValueError):
        return False


def chosen(states: Sequence[StateDict], include: Sequence[str], exclude: Sequence[str]) -> list[StateDict]:
    """Return the selected parts of the states; reports patterns that do not match any name on standard error."""
    tell_unmatched([*include, *exclude], states)
    return [(state.select(*include) if include else state).drop(*exclude) for state in states]


def tell_unmatched(patterns: Iterable[str], states: Sequence[StateDict]) -> None:
    """Report on standard error which patterns do not match any name, with the nearest name."""
    for pattern in dict.fromkeys(patterns):
        fits = matcher(pattern)
        if not any(fits(name) for state in states for name in state):
            from statedict.plan import near_pattern

            near = near_pattern(pattern, [name for state in states for name in state])
            hint = f"; the nearest is {near[0]!r}" if near else ""
            note(f"the pattern {pattern!r} does not match any name{hint}")
