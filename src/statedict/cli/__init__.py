"""The command line: each command a thin, typed layer over the public API."""

from ._main import main

__all__ = ["main"]
