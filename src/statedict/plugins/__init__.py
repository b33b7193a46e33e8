"""Formats that are written as a plugin is, with public names only, but come with this package.

Rows of the table (`formats/_table.py`) name their functions.
"""

__all__: list[str] = []
