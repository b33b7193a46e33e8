"""Arguments and options that several commands have, each with one name, one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Text and not a Path, which would take a URL's slashes together.
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="A checkpoint: a file, a directory of shards, a URL, or `-` for standard input."
    ),
]
Root = Annotated[str, typer.Option(metavar="PATH", help="The state dict at this path in the file.")]
Include = Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Only names that match; may be repeated.")]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Not the names that match; may be repeated.")
]
Rename = Annotated[
    list[str] | None,
    typer.Option(metavar="'OLD -> NEW'", help="A renaming rule; may be repeated, and the first that fits counts."),
]
MapFile = Annotated[
    Path | None, typer.Option("--map", metavar="FILE", help="A file of renaming rules, as `match --save-map` writes.")
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="torch, safetensors or npz; what the name of the file written says where left out."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")]
Told = Annotated[bool, typer.Option("--json", help="Say what was written as JSON, for programs.")]
