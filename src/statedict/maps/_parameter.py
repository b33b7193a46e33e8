"""Parameters of maps: numbers that names and shapes do not show, such as the size of an attention head."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# `{head_dim}` in the operations of a rule.
REFERENCE = re.compile(r"\{([^{}]*)\}")
# The files beside a checkpoint that say how its model is built: transformers', diffusers' and those of Meta and Mistral.
CONFIGS = ("config.json", "params.json")


@dataclass(frozen=True)
class Parameter:
    """A number that a map needs.

    Attributes:
        name: as in the rules, `{name}`.
        description: what it is, in words.
        config: where it is in a model's config: keys (`"text_config.head_dim"`), or quotients of two keys
            (`"dim / n_heads"`). The first that the config has is used.
    """

    name: str
    description: str
    config: tuple[str, ...] = ()

    def within(self, config: Mapping[str, Any]) -> int | None:
        """Return its value in a config, or None if it is not there.

        >>> Parameter("head_dim", "", ("head_dim", "dim / n_heads")).within({"dim": 4096, "n_heads": 32})
        128
        """
        for text in self.config:
            found = [_value(config, key.strip()) for key in text.split("/")]
            if None in found:
                continue
            whole, *parts = [number for number in found if number is not None]
            if not parts or (parts[0] and whole % parts[0] == 0):
                return whole // parts[0] if parts else whole
        return None


def config_beside(source: str) -> tuple[Path | None, Mapping[str, Any]]:
    """Return the config of the model in a local file or directory, and its path; (None, {}) if there is none."""
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    for name in CONFIGS:
        try:
            config = json.loads((folder / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(config, dict):
            return folder / name, config
    return None, {}


def _value(config: Mapping[str, Any], key: str) -> int | None:
    """Return the positive integer at a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
