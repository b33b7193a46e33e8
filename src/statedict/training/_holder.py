"""What a process is called in locks and error messages."""

from __future__ import annotations

import os


def holder() -> str:
    """This process, as other processes are told about it."""
    return f"process {os.getpid()} on {os.uname().nodename}"
