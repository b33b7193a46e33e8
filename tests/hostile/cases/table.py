"""All cases, by group."""

from __future__ import annotations

from . import (
    archives,
    bombs,
    bounds,
    control,
    damage,
    execution,
    gguf,
    meanings,
    packages,
    proportion,
    ranks,
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
    "damage": damage.CASES,
    "packages": packages.CASES,
    "ranks": ranks.CASES,
}
