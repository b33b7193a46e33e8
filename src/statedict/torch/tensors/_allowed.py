"""The classes and functions that the program has allowed with `torch.serialization.add_safe_globals`."""

from __future__ import annotations

from typing import Any

import torch._weights_only_unpickler as theirs


def callers_globals() -> dict[str, Any]:
    """The allowed classes and functions, by their path. Classes in a file can add to them while it is loaded."""
    found: dict[str, Any] = theirs._get_user_allowed_globals()  # type: ignore[no-untyped-call]
    return found
