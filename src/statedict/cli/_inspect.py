"""`statedict inspect`: show the content of a file. Reads only headers unless values are requested, and runs no code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os.path import commonprefix
from typing import Annotated, Any, Literal

import click

from statedict.formats import entries_of_tensors
from statedict.report import (
    PIECE,
    Fact,
    contents,
    count,
    elements,
    imports,
    plain,
    size,
    statistics,
    tensors,
    totals,
    values,
    warnings,
)
from statedict.state import Leaf, StateDict, matcher, nearest, pieces, require_in_proportion

from ..errors import RootError, UnknownNameError
from ._command import Option
from ._files import default_root, opened, tell, tell_unmatched
from ._options import AsJson, File, RootOrAll

SCHEMA = 1
OTHERS_SHOWN = 40
TEXT_SHOWN = 200
STYLES = {"dangerous": "bold red", "unknown": "dim", "note": "yellow"}


ListingOrder = Literal["file", "name", "size"]


Match = Annotated[tuple[str, ...], Option(metavar="PATTERN", help="Show only names matching PATTERN (repeatable).")]
Flat = Annotated[bool, Option("--flat", help="Show a row for each tensor, without folding.")]
Stats = Annotated[
    bool, Option("--stats", help="Also show min, max, mean, std, zeros, NaN and Inf; reads every tensor shown.")
]
Sort = Annotated[
    ListingOrder,
    Option(help="List tensors by name, or the largest first, without folding.", show_default=False),
]
Values = Annotated[str | None, Option(metavar="NAME", help="Print the elements of one tensor.")]


def inspect(
    file: File,
    root: RootOrAll = None,
    match: Match = (),
    flat: Flat = False,
    stats: Stats = False,
    sort: Sort = "file",
    values: Values = None,
    as_json: AsJson = False,
) -> None:
    """Show the content of a checkpoint: its format, its state dicts folded over repeated layers, and other values.

    Reads only headers, does not need PyTorch, and runs no code from the file.

    Examples:

        statedict inspect model.pt

        statedict inspect model.pt --match 'encoder.*' --stats

        statedict inspect run.ckpt --root optimizer --flat

        statedict inspect model.pt --sort size | head

        statedict inspect model.safetensors --values head.bias
    """
    with opened(file) as checkpoint:
        chosen = dict(checkpoint.roots) if root is None else {root: checkpoint.state_dict(root)}
        if values is not None:
            _print_values(_holding(checkpoint, chosen, values), values, checkpoint.path, as_json)
            return
        tell_unmatched(match, list(chosen.values()))
        facts = _facts(checkpoint, chosen, match, stats)
    for listed in facts["roots"]:
        _sort(listed["tensors"], sort)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        # Of roots that were not requested, and are not the default, only totals are shown.
        full = chosen if root is not None or match or facts["auto"] is None else {facts["auto"]}
        _print(facts, set(full), flat=flat or stats or sort != "file")


def _sort(facts: list[Fact], order: ListingOrder) -> None:
    if order == "name":
        facts.sort(key=lambda fact: str(fact["name"]))
    elif order == "size":
        facts.sort(key=lambda fact: -fact["bytes"])


def _facts(checkpoint: Any, chosen: dict[str, StateDict], match: Sequence[str], stats: bool) -> Fact:
    fits = matcher(match) if match else lambda name: True
    roots = [_root(path, state, fits, stats) for path, state in chosen.items()]
    return {
        "schema": SCHEMA,
        "file": str(checkpoint.path),
        "format": checkpoint.format,
        "producer": checkpoint.producer,
        "bytes": checkpoint.size,
        "auto": default_root(checkpoint),
        "roots": [root for root in roots if root["tensors"] or root["values"] or not match],
        "other": [] if match else contents(checkpoint.object, skip=checkpoint.roots),
        "globals": imports(checkpoint.globals),
        "metadata": checkpoint.shown_texts,
        "notes": checkpoint.notes,
        "unopened": {root: str(error) for root, error in checkpoint.unopened.items()},
    }


def _root(path: str, state: StateDict, fits: Any, stats: bool) -> Fact:
    shown = [fact for fact in tensors(state) if fits(fact["name"])]
    if stats:
        require_in_proportion(leaf for fact in shown if isinstance(leaf := state.leaf(fact["name"]), Leaf))
        for fact in shown:
            leaf = state.leaf(fact["name"])
            fact["stats"] = (
                statistics(pieces(leaf, PIECE)) if isinstance(leaf, Leaf) and "missing" not in fact else None
            )
    return {
        "path": path,
        "tensors": shown,
        "values": values(state, fits),
        "dtypes": totals(shown, [fact["dtype"] for fact in shown]),
        "parts": totals(shown, parts_of([fact["name"] for fact in shown])),
    }


def _print(facts: Fact, full: set[str], *, flat: bool) -> None:
    from . import _show

    out = _show.console()
    made_by = "" if facts["producer"] == "unknown" else f", written by {facts['producer']}"
    out.say(f"{facts['file']}: {facts['format']}, {size(facts['bytes'])}{made_by}", "bold")
    for root in facts["roots"]:
        out.print()
        if root["path"]:
            out.say(f"root {root['path']}", "bold cyan")
        if root["path"] in full:
            out.print((_show.flat if flat else _show.tree)(root["tensors"]))
        for line in _show.summary(root):
            out.say(line, "dim")
        if root["path"] not in full and root["tensors"]:
            out.say(f"(use --root {root['path']} to list its tensors)", "dim")
        _print_content(out, root["values"], flat)
    if facts["other"]:
        out.print()
    _print_content(out, facts["other"], flat)
    hidden = entries_of_tensors(facts["metadata"])
    for name, text in facts["metadata"].items():
        if name in hidden:
            continue
        cut = "…" if len(text) > TEXT_SHOWN else ""
        out.say(f"metadata {name!r}: {text[:TEXT_SHOWN]!r}{cut}", "dim")
    for root, reason in facts["unopened"].items():
        out.say(f"root {root} cannot be read: {reason}", STYLES["dangerous"])
    for level, line in warnings(facts["globals"], facts["notes"]):
        out.say(line, STYLES[level])


def _print_content(out: Any, facts: list[Fact], flat: bool) -> None:
    from . import _show

    if not facts:
        return
    facts = facts if flat else _show.folded(facts)
    out.print(_show.content(facts[: None if flat else OTHERS_SHOWN]))
    if not flat and len(facts) > OTHERS_SHOWN:
        out.say(f"and {count(len(facts) - OTHERS_SHOWN, 'more value')} (--flat shows all)", "dim")


def parts_of(names: Sequence[str]) -> list[str]:
    """Return each tensor's part of the model: the path up to the first label in which the modules differ.
    Repeated layers are one part, `layers.*`."""
    paths = [name.rpartition(".")[0] for name in names]
    modules = {path: ["*" if label.isdigit() else label for label in path.split(".")] for path in dict.fromkeys(paths)}
    shared = len(commonprefix([*modules.values()]))  # noqa: RUF071  # of lists of labels
    parts = {path: ".".join(labels[: shared + 1]) for path, labels in modules.items()}
    return [parts[path] for path in paths]


def _holding(checkpoint: Any, chosen: dict[str, StateDict], name: str) -> tuple[str, StateDict]:
    """Return the state dict with a tensor of this name: the only one, or the default root if several have it."""
    holding = {path: state for path, state in chosen.items() if name in state}
    if not holding:
        names = [known for state in chosen.values() for known in state]
        raise UnknownNameError(name, among=checkpoint.path, near=nearest(name, names, 3))
    path = next(iter(holding)) if len(holding) == 1 else default_root(checkpoint)
    if path not in holding:
        raise RootError(f"several state dicts have {name!r}", file=checkpoint.path, choices=list(holding))
    return path, holding[path]


def _print_values(root: tuple[str, StateDict], name: str, file: str, as_json: bool) -> None:
    """Print the elements of one tensor; all of them as JSON."""
    path, state = root
    leaf = state.leaf(name)
    require_in_proportion([leaf] if isinstance(leaf, Leaf) else [])
    value = state.numpy()[name] if isinstance(leaf, Leaf) else plain(state[name])
    if as_json:
        listed = elements(value) if isinstance(leaf, Leaf) else value
        click.echo(json.dumps({"schema": SCHEMA, "file": file, "root": path, "name": name, "values": listed}))
    else:
        tell(str(value))
