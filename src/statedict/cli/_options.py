"""Arguments and options that several commands share, each with one name, one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# A string, because a Path would merge the double slash of a URL.
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="A checkpoint: a file, a directory of shards, a URL, or `-` for standard input."
    ),
]
Root = Annotated[str, typer.Option(metavar="PATH", help="The state dict at this path in the file.")]
Include = Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Only names matching PATTERN (repeatable).")]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Exclude names matching PATTERN (repeatable).")
]
Rename = Annotated[
    list[str] | None,
    typer.Option(metavar="'OLD -> NEW'", help="A renaming rule (repeatable; the first that matches a name is used)."),
]
MapFile = Annotated[
    Path | None,
    typer.Option("--map", metavar="FILE", help="A file with renaming rules, as written by `match --save-map`."),
]
Format = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Output format: torch, safetensors or npz. Default: from the output suffix."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
JsonSummary = Annotated[bool, typer.Option("--json", help="Print a machine-readable summary as JSON.")]
