"""`statedict maps`: list the key maps of the package, show one of them, or check the conversions of transformers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import click

from statedict.report import Fact, count

from ._command import Argument, Option
from ._files import tell
from ._options import AsJson

if TYPE_CHECKING:
    from statedict.maps import MapFile


def maps(
    name: Annotated[
        str | None, Argument(metavar="NAME|FILE", help="Show this map: its rules, source and parameters.")
    ] = None,
    transformers: Annotated[
        str | None,
        Option(
            metavar="MODEL",
            help="Check the conversions of the installed transformers for this model type or class, instead of a map.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in key maps of `convert` and `match`, which convert between two implementations of a model.

    Tests check each map: it names every tensor once, a round trip is exact to the bit, and both implementations give equal
    outputs. With --transformers, report which conversions of transformers can be undone; for the others, name an example.

    Examples:

        statedict maps

        statedict maps llama-hf

        statedict maps --transformers mixtral
    """
    if transformers is not None:
        if name is not None:
            raise click.BadParameter("it cannot be combined with a map", param_hint="--transformers")
        _tell_conversions(transformers, as_json)
        return
    from statedict.maps import names, read

    if name is None:
        files = [read(each) for each in names()]
        if as_json:
            tell(json.dumps({"schema": 1, "maps": [_fact(file) for file in files]}))
        else:
            _print(files)
        return
    file = read(name)
    tell(json.dumps({"schema": 1, "maps": [_fact(file, rules=True)]}) if as_json else str(file))


def _tell_conversions(model: str, as_json: bool) -> None:
    """Print whether each rule of transformers for a model can be undone, and a name that breaks it."""
    from statedict.maps import conversion_rules

    found = conversion_rules(model)
    tell(
        json.dumps({"schema": 1, "rules": [rule._asdict() for rule in found]})
        if as_json
        else "\n".join(map(str, found))
    )


def _print(files: list[MapFile]) -> None:
    from . import _show

    out = _show.console()
    table = _show.Cells("map", "from", "to", "needs", "inverse")
    for file in files:
        inverse = "no" if file.obstacle else "yes"
        cells = (file.name, file.left, file.right, ", ".join(file.parameters), inverse)
        table.add_row(*(_show.text(cell, "") for cell in cells))
    out.print(table)
    out.say(f"{count(len(files), 'map')}; statedict maps NAME shows one", "dim")


def _fact(file: MapFile, *, rules: bool = False) -> Fact:
    return {
        "name": file.name,
        "description": file.description,
        "from": file.left,
        "to": file.right,
        "source": file.source,
        "proven": dict(file.proven),
        "parameters": {each.name: each.description for each in file.parameters.values()},
        "ignored": dict(file.ignored),
        "invertible": file.obstacle is None,
        "obstacle": file.obstacle,
        **({"rules": [rule.text for rule in file.rules]} if rules else {}),
    }
