"""Convert values to plain values for JSON."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any


def plain(value: Any) -> Any:
    """Convert named tuples to dicts, tuples to lists, infinite numbers and NaN to text (`"Infinity"`), recursively."""
    if hasattr(value, "_asdict"):
        return {key: plain(item) for key, item in value._asdict().items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return json.dumps(value) if isinstance(value, float) and not isfinite(value) else value
