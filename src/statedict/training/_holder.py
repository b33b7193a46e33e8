"""The name of this process in locks and error messages."""

from __future__ import annotations

import os
import platform


def holder() -> str:
    """Return the name of this process for the messages of other processes."""
    return f"process {os.getpid()} on {platform.node()}"
