"""All cases, by group."""

from __future__ import annotations

from . import (
    archives,
    bombs,
    bounds,
    control,
    damage,
    deepspeed,
    execution,
    folders,
    gguf,
    meanings,
    packages,
    proportion,
    ranks,
    roles,
    runs,
    safetensors,
)
from ._case import Case

GROUPS: dict[str, list[Case]] = {
    "control": control.CASES,
    "execution": execution.CASES,
    "bounds": bounds.CASES,
    "bombs": bombs.CASES,
    "proportion": proportion.CASES,
    "archives": archives.CASES,
    "meanings": meanings.CASES,
    "safetensors": safetensors.CASES,
    "gguf": gguf.CASES,
    "folders": folders.CASES,
    "damage": damage.CASES,
    "packages": packages.CASES,
    "runs": runs.CASES,
    "roles": roles.CASES,
    "deepspeed": deepspeed.CASES,
    "ranks": ranks.CASES,
}
