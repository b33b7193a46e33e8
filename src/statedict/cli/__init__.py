"""The command line: each command is a thin layer over the public API."""

from ._main import main

__all__ = ["main"]
