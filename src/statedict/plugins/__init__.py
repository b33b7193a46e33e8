"""Formats of this package that are written like a plugin, with public names only.

Rows of the table (`formats/_table.py`) name their functions.
"""

__all__: list[str] = []
