"""Write an adapter as the folder that PEFT loads: its weights and its configuration."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import statedict
from statedict.files import system

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_adapter(adapter: Any, texts: Mapping[str, str], folder: str) -> None:
    """Write the files of an adapter to a new folder, which gets its name when both are complete.

    Raises click.BadParameter if the folder exists: its files could be those of another adapter.
    """
    folder = str(Path(folder))  # without a slash at the end
    if folder == "-" or os.path.lexists(folder):
        found = "is standard output" if folder == "-" else "exists already"
        raise click.BadParameter(f"an adapter is written to a new folder, but {folder} {found}", param_hint="--output")
    # Beside the folder, so that the rename stays on one file system.
    made = os.path.join(os.path.dirname(folder), f".{os.path.basename(folder)}-{secrets.token_hex(4)}")
    os.mkdir(made)
    try:
        statedict.save(adapter, os.path.join(made, WEIGHTS))
        with open(os.path.join(made, CONFIG), "w", encoding="utf-8") as file:
            file.write(texts["adapter_config"] + "\n")
        system.rename(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
