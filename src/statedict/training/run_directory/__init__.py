"""A run in a directory: `_run` implements the protocol of `training/_run.py`; `_layout` and `_catalogue` list, `_changes`
change it.

What a checkpoint contains is described by its manifest (`statedict.formats.runs`).
"""

from ._run import DirectoryRun as DirectoryRun
