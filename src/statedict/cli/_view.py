"""`statedict view`: show a checkpoint, or compare two, as one HTML page for a browser."""

from __future__ import annotations

import json
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

import statedict
from statedict import report
from statedict.files import Frame, redacted, write

from ._command import Argument, Option
from ._files import STREAM, chosen, default_root, keep_inputs, opened, target, tell
from ._options import Exclude, File, Include, JsonSummary, RootOrAll, SecondRoot
from ._progress import showing

if TYPE_CHECKING:
    from statedict.plan import Diff
    from statedict.state import StateDict


Other = Annotated[str | None, Argument(metavar="OTHER", help="A second checkpoint to compare with the first.")]
Page = Annotated[
    str | None,
    Option("--output", "-o", metavar="PAGE", help="The page to write; `-` is standard output.  [default: FILE.html]"),
]
Headers = Annotated[bool, Option("--headers", help="Do not read tensors: no statistics, histograms and heat maps.")]
Show = Annotated[bool, Option("--open", help="Open the page in a browser.")]


def view(
    file: File,
    other: Other = None,
    output: Page = None,
    root: RootOrAll = None,
    second_root: SecondRoot = None,
    include: Include = (),
    exclude: Exclude = (),
    headers: Headers = False,
    show: Show = False,
    as_json: JsonSummary = False,
) -> None:
    """Write one HTML page about a checkpoint (tree, search, sizes, histograms, heat maps), or about the changes in a second.

    The page is self-contained and works offline. Reads every tensor once, one piece at a time. Needs
    `pip install 'statedict[view]'`, but not PyTorch.

    Examples:

        statedict view model.pt --open

        statedict view before.pt after.pt --output changes.html

        statedict view run.ckpt --root model --include 'encoder.*'

        statedict view 100-gigabytes.safetensors.index.json --headers
    """
    if headers and other is not None:
        raise click.BadParameter(
            "cannot be used with two files: comparing them needs the tensor data", param_hint="--headers"
        )
    names = [file] if other is None else [file, other]
    destination = _destination(output, names)
    if show and destination == STREAM:
        raise click.BadParameter("cannot open a page that is written to standard output", param_hint="--open")
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
    tensors = sum(len(survey.tensors) for survey in files[-1].roots.values())
    facts = {"schema": 1, "file": destination, "tensors": tensors, "bytes": len(page)}
    line = f"{destination}: {report.count(tensors, 'tensor')}, a page of {report.size(len(page))}"
    tell(json.dumps(facts) if as_json else line, err=destination == STREAM)
    if show:
        webbrowser.open(Path(destination).absolute().as_uri())


def _destination(output: str | None, files: list[str]) -> str:
    """Return the page's path: by default in the current directory, replacing only pages of this command."""
    if output is not None:
        return output
    if STREAM in files:
        raise click.BadParameter(
            "an output file name is required if the input is standard input", param_hint="--output"
        )
    # The query of a URL, which may contain a signature, is not used in the name.
    name = "-".join(Path(redacted(file).removesuffix("?***")).name for file in files) + ".html"
    if Path(name).exists() and not Path(name).read_bytes().startswith(report.MARK):
        raise click.BadParameter(
            f"{name} exists and is not a page of this command; choose another name", param_hint="--output"
        )
    return name


def _chosen(checkpoint: Any, root: str | None, one: bool) -> dict[str, StateDict]:
    """Return the state dicts to show: the requested one, or all; with `one`, the default root."""
    if root is None and not one:
        return dict(checkpoint.roots)
    state = checkpoint.state_dict("auto" if root is None else root)
    return {next((path for path, known in checkpoint.roots.items() if known is state), root or ""): state}


def _file(checkpoint: Any, states: dict[str, StateDict], read: bool) -> report.FileContent:
    """Return the page's content for one file; reads its tensors."""
    budget = report.BUDGET // max(len(states), 1)
    roots = {}
    for path, state in states.items():
        with showing(state, f"reading {path or checkpoint.path}") as shown:
            roots[path] = report.survey(shown, read=read, budget=budget)
    return report.FileContent(
        name=str(checkpoint.path),
        format=checkpoint.format,
        producer=checkpoint.producer,
        nbytes=checkpoint.size,
        roots=roots,
        other=report.contents(checkpoint.object, skip=checkpoint.roots),
        imports=report.imports(checkpoint.globals),
        notes=[*(f"{root} cannot be read: {error}" for root, error in checkpoint.unopened.items()), *checkpoint.notes],
        primary=default_root(checkpoint),
    )


def _diff(chosen: list[dict[str, StateDict]]) -> Diff:
    (first,), (second,) = (states.values() for states in chosen)
    with showing(first, "comparing") as shown:
        return statedict.diff(shown, second)
