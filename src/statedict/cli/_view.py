"""`statedict view`: a checkpoint, or two beside each other, as one HTML page to look at in a browser."""

from __future__ import annotations

import json
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import statedict
from statedict import report
from statedict.files import Frame, redacted, write

from ._inputs import chosen, keep_inputs
from ._options import Exclude, File, Include, Told
from ._progress import showing
from ._streams import STREAM, opened, target, tell

if TYPE_CHECKING:
    from statedict.plan import Diff
    from statedict.state import StateDict


def view(
    file: File,
    other: Annotated[
        str | None, typer.Argument(metavar="OTHER", help="A second checkpoint: what changed from the first to it.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PAGE", help="The page to write; `-` is standard output.  [default: FILE.html]"
        ),
    ] = None,
    root: Annotated[
        str | None, typer.Option(metavar="PATH", help="Only the state dict at this path in the file (in both files).")
    ] = None,
    second_root: Annotated[
        str | None, typer.Option(metavar="PATH", help="The same, of the second file, where it differs.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    headers: Annotated[
        bool, typer.Option("--headers", help="Read no tensor: no statistics, histograms and heat maps.")
    ] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Told = False,
) -> None:
    """Write one HTML page about a checkpoint: tree, search, sizes, histograms, heat maps; of two, what changed.

    The page has everything in it: it opens from a disk and asks nothing of a network. Reads every tensor once, one piece at
    a time; needs `pip install 'statedict[view]'`, and no PyTorch.

    Examples:

        statedict view model.pt --open

        statedict view before.pt after.pt --output changes.html

        statedict view run.ckpt --root model --include 'encoder.*'

        statedict view 100-gigabytes.safetensors.index.json --headers
    """
    if headers and other is not None:
        raise typer.BadParameter("what changed is not in the headers of two files", param_hint="--headers")
    names = [file] if other is None else [file, other]
    destination = _destination(output, names)
    if show and destination == STREAM:
        raise typer.BadParameter("what goes to standard output cannot be opened", param_hint="--open")
    keep_inputs(destination, *names, option="--output")
    report.charting()  # before anything is read
    asked = [root, root if second_root is None else second_root]
    with ExitStack() as stack:
        checkpoints = [stack.enter_context(opened(name)) for name in names]
        roots = [_chosen(c, at, other is not None) for c, at in zip(checkpoints, asked)]
        parts = iter(chosen([state for states in roots for state in states.values()], include, exclude))
        shown = [{path: next(parts) for path in states} for states in roots]
        files = [_file(c, states, not headers) for c, states in zip(checkpoints, shown)]
        page = report.page(files, None if other is None else _diff(shown))
    write(target(destination), [Frame(len(page), lambda: page)], durable=False)
    _tell(destination, files, len(page), as_json)
    if show:
        webbrowser.open(Path(destination).absolute().as_uri())


def _destination(output: str | None, files: list[str]) -> str:
    """Where the page goes: next to where one stands, and over a page of ours only, unless a name was given."""
    if output is not None:
        return output
    if STREAM in files:
        raise typer.BadParameter("the page of what comes by standard input needs a name", param_hint="--output")
    # A URL's query, which may be a signature, is no part of a name.
    name = "-".join(Path(redacted(file).removesuffix("?***")).name for file in files) + ".html"
    if Path(name).exists() and not _ours(Path(name)):
        raise typer.BadParameter(f"{name} is there, and no page of this command; name another", param_hint="--output")
    return name


def _ours(path: Path) -> bool:
    """Whether a file is a page of this command."""
    with path.open("rb") as file:
        return file.read(len(report.MARK)) == report.MARK


def _chosen(checkpoint: Any, root: str | None, one: bool) -> dict[str, StateDict]:
    """The state dicts to show: the one asked for, or all; where only one is wanted, the one that the file is about."""
    if root is None and not one:
        return dict(checkpoint.roots)
    state = checkpoint.state_dict("auto" if root is None else root)
    return {next((path for path, known in checkpoint.roots.items() if known is state), root or ""): state}


def _file(checkpoint: Any, states: dict[str, StateDict], read: bool) -> report.File:
    """All that the page tells of one file; its tensors are read here."""
    budget = report.BUDGET // max(len(states), 1)
    roots = {}
    for path, state in states.items():
        with showing(state, f"reading {path or checkpoint.path}") as shown:
            roots[path] = report.survey(shown, read=read, budget=budget)
    return report.File(
        name=str(checkpoint.path),
        format=checkpoint.format,
        producer=checkpoint.producer,
        nbytes=checkpoint.size,
        roots=roots,
        other=report.contents(checkpoint.object, skip=checkpoint.roots),
        imports=report.imports(checkpoint.globals),
        notes=checkpoint.notes,
    )


def _diff(chosen: list[dict[str, StateDict]]) -> Diff:
    (first,), (second,) = (states.values() for states in chosen)
    with showing(first, "comparing") as shown:
        return statedict.diff(shown, second)


def _tell(destination: str, files: list[report.File], nbytes: int, as_json: bool) -> None:
    """Where the page is, and what it tells of."""
    tensors = sum(len(survey.tensors) for survey in files[-1].roots.values())
    if as_json:
        told = json.dumps({"schema": 1, "file": destination, "tensors": tensors, "bytes": nbytes})
    else:
        told = f"{destination}: {report.count(tensors, 'tensor')}, a page of {report.size(nbytes)}"
    tell(told, err=destination == STREAM)
