"""The renaming rules of a command: `--map`, `--inverse` and `--param` name a map, `--rename` adds rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import click

from ._command import Option
from ._files import note
from ._options import as_bad_parameter

if TYPE_CHECKING:
    from statedict.plan import KeyMap

Map = Annotated[
    str | None,
    Option(
        "--map",
        metavar="NAME|FILE",
        help="A map of the package (see `statedict maps`), or a TOML file with rules, as `match --save-map` writes.",
    ),
]
Inverse = Annotated[bool, Option("--inverse", help="With --map: convert in the other direction.")]
Param = Annotated[
    tuple[str, ...],
    Option(
        metavar="NAME=N",
        help="With --map: a number that it needs (repeatable). Default: from config.json or params.json beside the input.",
    ),
]


def key_map(
    rules: Sequence[str], name: str | None, inverse: bool = False, given: Sequence[str] = (), source: str = ""
) -> KeyMap:
    """Return the rules of `--map` (for the checkpoint `source`), followed by those of `--rename`."""
    from statedict.plan import KeyMap

    if name is None:
        if inverse or given:
            raise click.BadParameter("it needs --map", param_hint="--inverse" if inverse else "--param")
        with as_bad_parameter({"--rename": rules}):
            return KeyMap(rules)
    from statedict.maps import StateMap, config_beside, read

    file = read(name)
    numbers = _numbers(given)
    path, config = config_beside(source) if file.parameters.keys() - numbers.keys() else (None, {})
    values = file.values(numbers, config)
    for parameter in values.keys() - numbers.keys():
        note(f"{parameter}={values[parameter]}, from {path}")
    made = StateMap(file, values)
    with as_bad_parameter({"--rename": rules}):
        return (made.inverse if inverse else made).extended(rules)


def _numbers(given: Sequence[str]) -> Mapping[str, int]:
    numbers = {}
    for text in given:
        name, _, number = text.partition("=")
        if not number.strip().isdecimal() or not int(number):
            raise click.BadParameter(
                f"{text!r} is not a parameter: expected NAME=N, such as head_dim=128", param_hint="--param"
            )
        numbers[name.strip()] = int(number)
    return numbers
