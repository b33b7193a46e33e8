"""`statedict doctor`: what a bug report needs to say about this installation."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import click

import statedict
from statedict.files import CHECKSUMS, system
from statedict.formats import LIMITS
from statedict.report import Fact

from ._options import AsJson

SCHEMA = 1
PACKAGES = (
    *("numpy", "ml-dtypes", "isal", "rich", "click", "torch", "safetensors", "array-api-compat", "fsspec", "obstore"),
    *("plotly", "transformers", "accelerate", "lightning", "diffusers", "peft"),
)


def doctor(as_json: AsJson = False) -> None:
    """Show the versions and settings that a bug report should contain. Does not import PyTorch.

    Examples:

        statedict doctor

        statedict doctor --json
    """
    facts = _facts()
    if as_json:
        click.echo(json.dumps(facts))
        return
    lines = {**facts["environment"], **facts["packages"]}
    width = max(map(len, lines))
    for name, value in lines.items():
        click.echo(f"{name:{width}}  {value or 'not installed'}")
    click.echo(f"{'limits':{width}}  the defaults of statedict.Limits()")


def _facts() -> Fact:
    return {
        "schema": SCHEMA,
        "environment": {
            "statedict": statedict.__version__,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "executable": sys.executable,
            "system": platform.platform(),
            "processors": str(system.processors()),
            "byte order": sys.byteorder,
            "checksums": CHECKSUMS,
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "limits": asdict(LIMITS),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
