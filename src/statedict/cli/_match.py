"""`statedict match`: check whether a checkpoint would load into a model, or in place of another file. Changes nothing."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Annotated, Any

import typer

import statedict
from statedict.report import Fact

from ._convert import key_map
from ._files import keep_inputs, opened, tell
from ._options import AsJson, Exclude, File, Include, MapFile, Rename, Root, as_bad_parameter

if TYPE_CHECKING:
    from statedict.plan import Inference


def match(
    file: File,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A function that returns the model. Imports and runs your code."),
    ] = None,
    keys: Annotated[
        str | None, typer.Option(metavar="FILE", help="Use the tensor names of this checkpoint instead of a model's.")
    ] = None,
    root: Root = "auto",
    keys_root: Annotated[str, typer.Option(metavar="PATH", help="The same for --keys.")] = "auto",
    include: Include = None,
    exclude: Exclude = None,
    rename: Rename = None,
    map_file: MapFile = None,
    mismatched: Annotated[
        str, typer.Option(metavar="HOW", help="For different shapes: error, skip, slice or interpolate.")
    ] = "error",
    infer: Annotated[bool, typer.Option("--infer", help="Infer renaming rules, with reasons.")] = False,
    save_map: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --infer: write the rules to this file as TOML.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check whether a checkpoint would load: report missing, unexpected and mismatched tensors, and how to fix it.

    Exit code: 0 if it would load, 1 if it would not, 2 for an error in the arguments or a file.

    Examples:

        statedict match pretrained.pt --keys mine.pt

        statedict match pretrained.pt --model mypackage.models:make_encoder --exclude head

        statedict match theirs.pt --keys mine.pt --infer --save-map names.toml
    """
    if (model is None) == (keys is None):
        raise typer.BadParameter("exactly one of them is required", param_hint="--model, --keys")
    if save_map is not None:
        keep_inputs(save_map, file, keys, map_file, option="--save-map")
    from statedict import plan

    options: dict[str, Any] = {"include": include, "exclude": exclude, "mismatched": mismatched}
    if rename or map_file:
        options["rename"] = key_map(rename or [], map_file)
    with opened(file) as source:
        given = source.state_dict(root)
        if keys is None:
            target = statedict.state_dict(_made(str(model)))
        else:
            with opened(keys) as other:
                target = other.state_dict(keys_root)
        if infer:
            _tell_inferred(statedict.match(target, given), save_map, as_json)
            return
        asked = {"--mismatched": mismatched != "error"}
        with as_bad_parameter(
            {**asked, "--include": include, "--exclude": exclude, "--rename": rename, "--map": map_file}
        ):
            report = plan.match(given, target, **options).report()
    tell(json.dumps({"schema": 1, **report.to_dict()}) if as_json else str(report))
    raise typer.Exit(0 if report.ok else 1)


def _made(place: str) -> Any:
    """Call the function at `package.module:name`; the current directory is importable, as with `python -m`."""
    module, _, name = place.partition(":")
    sys.path.insert(0, "")
    try:
        return getattr(import_module(module), name)()
    except Exception as error:  # the user's code may raise anything
        where = extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        raise typer.BadParameter(f"{place!r} did not return a model: {reason}", param_hint="--model") from error
    finally:
        sys.path.remove("")


def _tell_inferred(found: Inference, save_map: Path | None, as_json: bool) -> None:
    if save_map is not None:
        save_map.write_text(found.key_map.to_toml())
    fits = not found.unfilled and not found.unmatched
    facts: Fact = {
        "schema": 1,
        "rules": [rule.line for rule in found.key_map.rules],
        "steps": [step._asdict() for step in found.steps],
        "unmatched": list(found.unmatched),
        "unfilled": list(found.unfilled),
    }
    tell(json.dumps(facts) if as_json else str(found))
    raise typer.Exit(0 if fits else 1)
