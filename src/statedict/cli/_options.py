"""Arguments and options that several commands share, each with one name, one meaning and one help text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import click

from ..errors import StateDictError, printable
from ._command import Argument, Option
from ._complete import formats

# An argument in a text, and the first character of its value, if there is one.
ARGUMENT = re.compile(
    r"(?<![\w.])(root|into|include|exclude|rename|mismatched|allow_missing|allow_unexpected|base|method|weights|density|decay|seed|rank|format|"
    r"max_shard_size)=([^\s,;:)]?)"
)

# A string, because a Path would merge the double slash of a URL.
File = Annotated[
    str,
    Argument(metavar="FILE", help="A checkpoint: a file, a directory, a URL, or `-` for standard input."),
]
Root = Annotated[str, Option(metavar="PATH", help="The state dict at this path in the file.")]
SharedRoot = Annotated[str, Option(metavar="PATH", help="The state dict at this path in every file.")]
RootOrAll = Annotated[str | None, Option(metavar="PATH", help="Only the state dict at this path.")]
SecondRoot = Annotated[str | None, Option(metavar="PATH", help="The same for the second file, if it is different.")]
Include = Annotated[tuple[str, ...], Option(metavar="PATTERN", help="Only names matching PATTERN (repeatable).")]
Exclude = Annotated[tuple[str, ...], Option(metavar="PATTERN", help="Exclude names matching PATTERN (repeatable).")]
Rename = Annotated[
    tuple[str, ...],
    Option(metavar="'OLD -> NEW'", help="A renaming rule (repeatable; the first that matches a name is used)."),
]
Format = Annotated[
    str | None,
    Option(
        metavar="NAME",
        completed=formats,
        help="Output format: torch, safetensors, npz, or that of a plugin. Default: from the output suffix.",
    ),
]
AsJson = Annotated[bool, Option("--json", help="Print the result as JSON.")]
JsonSummary = Annotated[bool, Option("--json", help="Print a machine-readable summary as JSON.")]


def in_options(text: str) -> str:
    """Return an error or advice, which names arguments of the library's functions, with the options of this program.

    >>> in_options("several state dicts: choose one with root=, or include='head'")
    "several state dicts: choose one with --root, or --include 'head'"
    """
    text = re.sub(r"(raise the limit:|use) (?=statedict\.open)", "open it in Python: ", text)
    return ARGUMENT.sub(lambda found: f"{option(found[1])} {found[2]}".rstrip(), text)


def option(argument: str) -> str:
    """Return the option for an argument of the library's functions."""
    return "--weight" if argument == "weights" else f"--{argument.replace('_', '-')}"


@contextmanager
def as_bad_parameter(options: Mapping[str, object]) -> Iterator[None]:
    """Turn a ValueError of the `with` block into a click.BadParameter for the options that were given.

    The block must only parse these options, or apply them to names. If none was given, the error is not the user's mistake
    and is raised unchanged. StateDictError is never changed.
    """
    try:
        yield
    except StateDictError:
        raise
    except ValueError as error:
        given = [name for name, value in options.items() if value]
        if not given:
            raise
        raise click.BadParameter(printable(in_options(str(error))), param_hint=", ".join(given)) from error
