"""`statedict match`: check whether a checkpoint would load into a model, or in place of another file. Changes nothing."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from traceback import extract_tb
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import click

import statedict
from statedict.report import Fact

from ._command import Argument, Option
from ._complete import policies
from ._files import keep_inputs, opened, state_at, tell
from ._key_map import Inverse, Map, Param, key_map
from ._options import AsJson, Exclude, File, Include, Rename, Root, as_bad_parameter, in_options, option

if TYPE_CHECKING:
    from statedict.maps import MapFit
    from statedict.plan import Inference, LoadReport
    from statedict.state import StateDict


Model = Annotated[
    str | None,
    Option(metavar="MODULE:FUNCTION", help="A function that returns the model. Imports and runs your code."),
]
Other = Annotated[str | None, Argument(metavar="OTHER", help="A checkpoint of the model: short for --keys OTHER.")]
Keys = Annotated[
    str | None, Option(metavar="FILE", help="Use the tensor names of this checkpoint instead of a model's.")
]
KeysRoot = Annotated[str, Option(metavar="PATH", help="The same for --keys.")]
Into = Annotated[str | None, Option(metavar="PATH", help="Load into the module at this path.")]
Mismatched = Annotated[
    tuple[str, ...],
    Option(
        metavar="[PATTERN=]HOW",
        completed=policies,
        help="For different shapes (of names matching PATTERN): error, skip, slice, interpolate or channels "
        "(repeatable).",
    ),
]
AllowMissing = Annotated[tuple[str, ...], Option(metavar="PATTERN", help="Names that may be missing (repeatable).")]
AllowUnexpected = Annotated[
    tuple[str, ...], Option(metavar="PATTERN", help="Names that may be unexpected (repeatable).")
]
Infer = Annotated[bool, Option("--infer", help="Infer renaming rules, with reasons.")]
SaveMap = Annotated[Path | None, Option(metavar="FILE", help="With --infer: write the rules to this file as TOML.")]


def match(
    file: File,
    other: Other = None,
    model: Model = None,
    keys: Keys = None,
    root: Root = "auto",
    keys_root: KeysRoot = "auto",
    include: Include = (),
    exclude: Exclude = (),
    into: Into = None,
    rename: Rename = (),
    map_name: Map = None,
    inverse: Inverse = False,
    param: Param = (),
    mismatched: Mismatched = (),
    allow_missing: AllowMissing = (),
    allow_unexpected: AllowUnexpected = (),
    infer: Infer = False,
    save_map: SaveMap = None,
    as_json: AsJson = False,
) -> None:
    """Check whether a checkpoint would load: report missing, unexpected and mismatched tensors, and how to fix it.

    Exit code: 0 if it would load, 1 if it would not, 2 for an error in the arguments or a file.

    Examples:

        statedict match pretrained.pt mine.pt

        statedict match pretrained.pt --model mypackage.models:make_encoder --exclude head

        statedict match consolidated.00.pth --keys model.safetensors --map llama-hf --param head_dim=128

        statedict match theirs.pt --keys mine.pt --infer --save-map names.toml
    """
    if [other, model, keys].count(None) != 2:
        raise click.BadParameter("exactly one of them is required", param_hint="OTHER, --model, --keys")
    keys = keys or other
    if save_map is not None:
        keep_inputs(save_map, file, keys, map_name, option="--save-map")
    from statedict import plan
    from statedict.maps import fitting

    names = key_map(rename, map_name, inverse, param, file) or None
    options: dict[str, Any] = {"include": include or None, "exclude": exclude or None, "rename": names}
    options["mismatched"] = _policies(mismatched)
    with opened(file) as source:
        given = state_at(source, root)
        target = _target(model, keys, keys_root)
        if into:
            target = target.sub(into)
        if infer:
            _end_inferred(statedict.match(target, given), save_map, fitting(given, target), as_json)
        asked = {"--include": include, "--exclude": exclude, "--rename": rename, "--map": map_name}
        with as_bad_parameter({**asked, "--mismatched": mismatched}):
            report = plan.match(given, target, **options).report()
        fits = [] if report.ok or map_name else fitting(given, target)
    report = report.allowing(missing=allow_missing, unexpected=allow_unexpected)
    command = ["statedict", "match", file, *(["--model", model] if model else ["--keys", str(keys)])]
    command += ["--keys-root", keys_root] if keys_root != "auto" else []
    _suggest_commands(report, command, root, into)
    _end(report.ok, report.to_dict(), str(report), fits, as_json)


def _target(model: str | None, keys: str | None, keys_root: str) -> StateDict:
    """Return the state to load into: the model's, or that of the checkpoint `keys`."""
    if keys is None:
        state: StateDict = statedict.state_dict(_made(str(model)))
        return state
    with opened(keys) as checkpoint:
        return state_at(checkpoint, keys_root)


def _policies(given: Sequence[str]) -> str | dict[str, str]:
    """Return the policy for all names, or those by pattern; a policy without a pattern is for all other names."""
    split = [how.rpartition("=") for how in given]
    others = [how for _, mark, how in split if not mark]
    policies = {pattern: how for pattern, mark, how in split if mark}
    if not policies:
        return others[-1] if others else "error"
    return policies | ({"*": others[-1]} if others else {})


def _suggest_commands(report: LoadReport, command: list[str], root: str, into: str | None) -> None:
    """Make the advice in the report name options, and its suggestions commands that begin with `command`."""
    report.notes = [in_options(note) for note in report.notes]
    if report.attempt is not None:
        fixed = {name: value for name, value in (("root", root), ("into", into)) if value not in (None, "auto")}
        report.attempt = replace(report.attempt, fixed=fixed, call=partial(_command, command))


def _command(command: list[str], arguments: Mapping[str, Any], *, infer: bool = False) -> str:
    """Return the command line for a suggested call of `load_state_dict` or `match`."""
    words = [*command, *(["--infer"] if infer else [])]
    for name, value in arguments.items():
        if name == "rename":
            value = [rule.line for rule in statedict.KeyMap(value).rules]
        elif isinstance(value, Mapping):
            value = [f"{pattern}={how}" for pattern, how in value.items()]
        for one in [value] if isinstance(value, str) else value:
            words += [option(name), str(one)]
    return shlex.join(words)


def _made(place: str) -> Any:
    """Call the function at `package.module:name` (or `.name`); the current directory is importable, as with `python -m`."""
    sys.path.insert(0, "")
    try:
        function = resolve_name(place)
        if isinstance(function, ModuleType):
            raise TypeError(f"it is a module; name a function in it: {place}:FUNCTION")
        return function()
    except Exception as error:  # the user's code may raise anything
        reason = f"{type(error).__name__}: {error}{_line_of_user(error)}"
        raise click.BadParameter(f"{place!r} did not return a model: {reason}", param_hint="--model") from error
    finally:
        sys.path.remove("")


def _line_of_user(error: Exception) -> str:
    """Return the last line of code that raised `error`, unless it is ours or that of Python's import system."""
    frame = extract_tb(error.__traceback__)[-1]
    ours = frame.filename in (__file__, pkgutil.__file__, importlib.__file__) or frame.filename.startswith("<frozen")
    return "" if ours else f" ({frame.filename}, line {frame.lineno})"


def _end(ok: bool, facts: Fact, report: str, fits: Sequence[MapFit], as_json: bool) -> NoReturn:
    """Print the facts as JSON, or the report and the maps that fit, the best first; end with exit code 0 or 1."""
    if as_json:
        tell(json.dumps({"schema": 1, **facts, "maps": [fit._asdict() for fit in fits]}))
    else:
        from ._show import say_lines

        say_lines("\n".join([report, *(["maps that fit:"] if fits else []), *(f"  {fit}" for fit in fits[:3])]))
    raise click.exceptions.Exit(0 if ok else 1)


def _end_inferred(found: Inference, save_map: Path | None, maps: Sequence[MapFit], as_json: bool) -> NoReturn:
    """Print inferred rules, write them to `save_map` if it is given, and end."""
    if save_map is not None:
        save_map.write_text(found.key_map.to_toml(), encoding="utf-8")
    facts: Fact = {
        "rules": [rule.line for rule in found.key_map.rules],
        "steps": [step._asdict() for step in found.steps],
        "unmatched": list(found.unmatched),
        "unfilled": list(found.unfilled),
    }
    _end(not found.unfilled and not found.unmatched, facts, in_options(str(found)), maps, as_json)
